-- A SOCKS5 server (RFC 1928, RFC 1929): CONNECT, to destinations that are allowed.
local options = require "penstock.options"
local proxy_server = require "penstock.proxy_server"
local ps = require "penstock"

local call = 'penstock.policy.socks{ allow = { "*.example.com:443", "10.0.0.0/8:22" }, users = { name = "secret" } }'
local names = { "allow", "users" }

local OPEN, LOGIN, NONE = 0, 2, 255
local GENERAL, RULES, UNREACHABLE, REFUSED, EXPIRED, COMMAND, ADDRESS = 1, 2, 4, 5, 6, 7, 8
local codes = {
  not_allowed = RULES, private = RULES, denied = RULES, bad_name = UNREACHABLE, dns = UNREACHABLE,
  unreachable = UNREACHABLE, refused = REFUSED, reset = REFUSED, timeout = EXPIRED,
}
local SOCKS4_REJECTED = "\0\91\0\0\0\0\0\0"

-- Version 5, the code, and the address that it is bound to, which is nobody's business.
local function reply(code) return "\5" .. string.char(code) .. "\0\1\0\0\0\0\0\0" end

local function denied(reason, bytes) return nil, ps.deny { reason = reason, reply = bytes } end

-- A byte of length and so many bytes; nil and a word.
local function take_text(conn)
  local length, why = conn:take(1)
  if not length then return nil, why end
  if length == "\0" then return "" end
  return conn:take(length:byte())
end

-- true; nil and a decision.
local function log_in(conn, check)
  local version, why = conn:take(1)
  if version and version ~= "\1" then return denied("bad_request", "\1\1") end
  local user, password
  if version then user, why = take_text(conn) end
  if user then password, why = take_text(conn) end
  if not password then return denied(why) end
  if not check(user, password) then return denied("login", "\1\1") end
  conn:tag("user", user)
  conn:inject("down", "\1\0")
  return true
end

-- Agrees on how the client tells who it is, and hears that. true; nil and a decision.
local function greet(conn, check)
  local version, why = conn:take(1)
  if version == "\4" then return denied("socks4", SOCKS4_REJECTED) end
  if version and version ~= "\5" then return denied "bad_request" end
  local methods
  if version then methods, why = take_text(conn) end
  if not methods then return denied(why) end
  local method = check and LOGIN or OPEN
  if not methods:find(string.char(method), 1, true) then return denied("no_method", "\5" .. string.char(NONE)) end
  conn:inject("down", "\5" .. string.char(method))
  if not check then return true end
  return log_in(conn, check)
end

local function format_v6(bytes)
  local groups = {}
  for i = 1, 16, 2 do groups[#groups + 1] = ("%x"):format(bytes:byte(i) * 256 + bytes:byte(i + 1)) end
  return table.concat(groups, ":")
end

local address_kinds = {
  [1] = function(conn)
    local bytes, why = conn:take(4)
    return bytes and ("%d.%d.%d.%d"):format(bytes:byte(1, 4)), why
  end,
  [3] = take_text,
  [4] = function(conn)
    local bytes, why = conn:take(16)
    return bytes and format_v6(bytes), why
  end,
}

local function read(conn, check)
  local ok, decision = greet(conn, check)
  if not ok then return nil, decision end
  local head, why = conn:take(4)
  if not head then return denied(why) end
  local version, command, reserved, kind = head:byte(1, 4)
  if version ~= 5 or reserved ~= 0 then return denied("bad_request", reply(GENERAL)) end
  if command ~= 1 then return denied("command", reply(COMMAND)) end
  local take_address = address_kinds[kind]
  if not take_address then return denied("address_kind", reply(ADDRESS)) end
  local host, port
  host, why = take_address(conn)
  if host then port, why = conn:take(2) end
  if not port then return denied(why) end
  return host, port:byte(1) * 256 + port:byte(2)
end

return options.constructor(call, names, function(o)
  return proxy_server.policy(o, {
    read = read,
    reply = function(word) return reply(codes[word] or GENERAL) end,
    success = reply(0),
  })
end)
