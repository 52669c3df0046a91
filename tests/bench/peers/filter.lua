-- haproxy's Lua filters `pass` and `replace`: the same work as ../policies, both ways.
-- luacheck: globals core filter
local function register(name, payload)
    local Filter = { id = name, flags = 0 }
    Filter.__index = Filter

    function Filter:new() -- luacheck: no unused args
        return setmetatable({}, Filter)
    end

    function Filter:start_analyze(txn, channel) -- luacheck: no unused args
        filter.register_data_filter(self, channel)
    end

    Filter.tcp_payload = payload
    core.register_filter(name, Filter, function(new)
        return new
    end)
end

-- Without input there is nothing to ask for: channel:data() would not return a string.
register("pass", function(_, _, channel)
    local length = channel:input()
    if length > 0 then
        channel:data(0, length)
    end
    return length
end)

register("replace", function(_, _, channel)
    local length = channel:input()
    if length > 0 then
        channel:set((channel:data(0, length):gsub("tok_abcd", "TOK_ABCD")), 0, length)
    end
    return length
end)
