-- One hook waits: the filter of a direction that has gone quiet.
return {
    filter = {
        up = function(_, rd, wr)
            for part in function() return rd:read() end do
                wr:write(part)
            end
        end,
    },
}
