-- MySQL and MariaDB: the server greets, with a salt that the client's password is hashed with, inside TLS. So the
-- greeting must be the real server's, and there is only a dialogue between two that are connected.
local GREETING_MAX = 1024
local PROTOCOL_10 = 10
local PROTOCOL_41, SSL = 0x0200, 0x0800 -- capabilities, in their lower half
local SSL_REQUEST_BYTES = 32

local mysql = {}

-- The server's first packet, which stays: its body.
local function peek_greeting(io)
  local head, why = io:peek(4)
  if not head then return nil, why end
  local a, b, c, number = head:byte(1, 4)
  local len = a + b * 256 + c * 65536
  if number ~= 0 then return nil, "mismatch" end
  if len > GREETING_MAX then return nil, "too_long" end
  local packet
  packet, why = io:peek(4 + len)
  if not packet then return nil, why end
  return packet:sub(5)
end

-- Does the server that greets like this have TLS?
local function offers_tls(body)
  if body:byte(1) ~= PROTOCOL_10 then return false end
  local version_end = body:find("\0", 2, true)
  local low, high = body:byte((version_end or #body) + 14, (version_end or #body) + 15)
  return high ~= nil and bit.band(low + high * 256, SSL) ~= 0
end

function mysql.between(client, upstream)
  local body, why = peek_greeting(upstream)
  if not body then return nil, why end
  if not offers_tls(body) then return nil, "mismatch" end
  client:write(upstream:exactly(4 + #body))
  local head
  head, why = client:peek(6)
  if not head then return nil, why end
  local len, b, c, sequence, low, high = head:byte(1, 6)
  local asks = bit.band(low + high * 256, PROTOCOL_41 + SSL) == PROTOCOL_41 + SSL
  if len ~= SSL_REQUEST_BYTES or b + c ~= 0 or sequence ~= 1 or not asks then return nil, "mismatch" end
  local request
  request, why = client:exactly(4 + SSL_REQUEST_BYTES)
  if not request then return nil, why end
  upstream:write(request)
  return {}
end

return mysql
