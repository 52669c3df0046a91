-- LDAP: an extended request with StartTLS's number, and its answer (RFC 4511 section 4.14).
local START_TLS = "1.3.6.1.4.1.1466.20037"
local SEQUENCE, INTEGER, ENUMERATED, OCTETS = 0x30, 0x02, 0x0a, 0x04
local EXTENDED_REQUEST, REQUEST_NAME, EXTENDED_RESPONSE = 0x77, 0x80, 0x78
local REQUEST_MAX, RESPONSE_MAX = 512, 65536

local ldap = { client_first = true }

-- The element of BER at `at`: its tag, and where its content begins and ends. nil: it is not whole, or none.
local function element(bytes, at)
  local tag, len = bytes:byte(at, at + 1)
  if not len then return nil end
  local from = at + 2
  if len >= 0x80 then
    local n = len - 0x80
    if n < 1 or n > 4 or from + n - 1 > #bytes then return nil end
    len = 0
    for i = from, from + n - 1 do len = len * 256 + bytes:byte(i) end
    from = from + n
  end
  return tag, from, from + len - 1
end

-- The next message, which stays: its bytes.
local function peek_message(io, max)
  local first, why = io:peek(1)
  if not first then return nil, why end
  if first:byte() ~= SEQUENCE then return nil, "mismatch" end
  local head
  head, why = io:peek(2)
  if not head then return nil, why end
  local len = head:byte(2)
  if len == 0x80 or len > 0x84 then return nil, "mismatch" end
  if len > 0x80 then head, why = io:peek(2 + len - 0x80) end
  if not head then return nil, why end
  local _, _, last = element(head, 1)
  if last > max then return nil, "too_long" end
  return io:peek(last)
end

-- The parts of a message: its number, as encoded, the tag and the content of what it asks or answers. nil when there
-- is something else behind that, or it is none.
local function parse_message(bytes)
  local _, from, last = element(bytes, 1)
  local tag, id_from, id_last = element(bytes, from)
  if tag ~= INTEGER or id_last < id_from or id_last - id_from > 4 or id_last > last then return nil end
  local operation, content_from, content_last = element(bytes, id_last + 1)
  if not operation or content_last ~= last or last ~= #bytes then return nil end
  return bytes:sub(id_from, id_last), operation, bytes:sub(content_from, content_last)
end

-- Makes an element; contents here are short.
local function make(tag, content) return string.char(tag, #content) .. content end

function ldap.serve(io)
  local message, why = peek_message(io, REQUEST_MAX)
  if not message then return nil, why end
  local id, operation, content = parse_message(message)
  if operation ~= EXTENDED_REQUEST then return nil, "mismatch" end
  local tag, from, last = element(content, 1)
  if tag ~= REQUEST_NAME or last ~= #content or content:sub(from, last) ~= START_TLS then return nil, "mismatch" end
  io:exactly(#message)
  if not io:is_quiet() then return nil, "mismatch" end
  io:write(make(SEQUENCE, make(INTEGER, id) .. make(EXTENDED_RESPONSE,
    make(ENUMERATED, "\0") .. make(OCTETS, "") .. make(OCTETS, "") .. make(0x8a, START_TLS))))
  return { id = id, request = message }
end

function ldap.ask(io, facts)
  io:write(facts.request)
  local message, why = peek_message(io, RESPONSE_MAX)
  if not message then return nil, why end
  local id, operation, content = parse_message(message)
  if operation ~= EXTENDED_RESPONSE or id ~= facts.id then return nil, "its answer is none to StartTLS" end
  local tag, from, last = element(content, 1)
  if tag ~= ENUMERATED or last ~= from then return nil, "its answer is none to StartTLS" end
  local code = content:byte(from)
  if code ~= 0 then return nil, ("it answers to StartTLS with result %d"):format(code) end
  io:exactly(#message)
  return true
end

return ldap
