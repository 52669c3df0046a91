-- Two hooks wait: the filters of both directions.
local function loop(_, rd, wr)
    for part in function() return rd:read() end do
        wr:write(part)
    end
end

return { filter = { up = loop, down = loop } }
