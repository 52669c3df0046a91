-- A token by another of the same length both ways, right across the borders of what is read.
local TOKEN, INSTEAD = "tok_abcd", "TOK_ABCD"

-- Where a token begins that the end of `text` cuts.
local function cut_token(text)
    local from = text:find("t", 1 - #TOKEN, true)
    while from and text:sub(from) ~= TOKEN:sub(1, #text - from + 1) do
        from = text:find("t", from + 1, true)
    end
    return from
end

local function replace(_, rd, wr)
    local kept = ""
    for part in function() return rd:read() end do
        if kept ~= "" then
            part = kept .. part
            kept = ""
        end
        part = part:gsub(TOKEN, INSTEAD)
        local from = cut_token(part)
        if from then
            kept = part:sub(from)
            part = part:sub(1, from - 1)
        end
        wr:write(part)
    end
    wr:write(kept)
end

return { filter = { up = replace, down = replace } }
