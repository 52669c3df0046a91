-- Reads and writes line by line, changes nothing.
return {
    filter = {
        up = function(_, rd, wr)
            for line, eol in rd:lines() do
                wr:write(line, eol)
            end
        end,
    },
}
