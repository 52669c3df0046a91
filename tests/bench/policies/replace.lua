-- A token by another of the same length, chunk by chunk, both ways; one cut by a border between chunks stays.
return {
    data = function(conn, dir, chunk) -- luacheck: no unused args
        return (chunk:gsub("tok_abcd", "TOK_ABCD"))
    end,
}
