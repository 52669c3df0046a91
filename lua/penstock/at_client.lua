-- Accept hooks that decide by who the client is. Behind a proxy that is known once its PROXY header has come, so such a
-- hook is called then: compose.lua puts it before the connect hooks.
local at_client = {}
local decides = setmetatable({}, { __mode = "k" }) -- accept hook -> function(conn)

-- hook(f) -> the accept hook that calls f(conn), unless a PROXY header is to come.
function at_client.hook(f)
  local function accept(conn)
    if conn.proxy ~= false then return f(conn) end
  end
  decides[accept] = f
  return accept
end

-- late(accept) -> what is to be called before the connect hooks; nil for other hooks.
function at_client.late(accept)
  local f = accept and decides[accept]
  return f and function(conn)
    if conn.proxy then return f(conn) end
  end
end

return at_client
