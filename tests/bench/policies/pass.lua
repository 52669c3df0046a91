-- Sees every chunk, changes nothing.
return {
    data = function(conn, dir, chunk) -- luacheck: no unused args
        return nil
    end,
}
