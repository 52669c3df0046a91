-- SSH, TLS and HTTP on one port, told apart by the first bytes. Who says nothing for the handshake timeout, or
-- speaks another protocol, is turned away.
--
--   penstock --handshake-timeout 5 -p examples/sniff.lua :443 127.0.0.1:80
local ps = require "penstock"

return {
  connect = function(conn)
    local first, err = conn:peek(3)
    if not first then return ps.deny { reason = err } end
    if first == "SSH" then return "127.0.0.1:22" end
    if first:find "^\22\3" then return "127.0.0.1:8443" end -- the record of a ClientHello
    if first:find "^%u%u" then return end -- a method of HTTP
    return ps.deny { reason = "unknown_protocol", reset = true }
  end,
}
