-- An HTTP proxy that knows CONNECT and nothing else, to destinations that are allowed.
local base64 = require "penstock.base64"
local cidr = require "penstock.cidr"
local http1 = require "penstock.http1"
local options = require "penstock.options"
local proxy_server = require "penstock.proxy_server"
local ps = require "penstock"

local call = 'penstock.policy.connect{ allow = { "*.example.com:443", "10.0.0.0/8:22" }, users = { name = "secret" } }'
local names = { "allow", "users" }

local HEAD_MAX = 16 * 1024
local FORBIDDEN = { "403 Forbidden", "This destination is not allowed here." }
local answers = {
  bad = { "400 Bad Request", "This is no request that can be understood in one way only." },
  timeout_request = { "408 Request Timeout", "The request did not come in time." },
  too_long = { "431 Request Header Fields Too Large", "The head of the request is too long." },
  method = { "405 Method Not Allowed", "This is a proxy for tunnels: it takes CONNECT host:port, and nothing else." },
  login = { "407 Proxy Authentication Required", "This proxy asks for a user and a password." },
  not_allowed = FORBIDDEN, private = FORBIDDEN,
  bad_name = { "400 Bad Request", "The destination is no name and no address." },
  dns = { "502 Bad Gateway", "The name of the destination cannot be resolved." },
  refused = { "502 Bad Gateway", "The destination refuses the connection." },
  unreachable = { "502 Bad Gateway", "The destination cannot be reached." },
  reset = { "502 Bad Gateway", "The destination breaks the connection off." },
  denied = { "502 Bad Gateway", "The way to the destination is barred." },
  timeout = { "504 Gateway Timeout", "The destination does not answer." },
}
local UNAVAILABLE = { "503 Service Unavailable", "This proxy cannot connect now." }
local fields = {
  login = 'Proxy-Authenticate: Basic realm="penstock", charset="UTF-8"\r\n',
  method = "Allow: CONNECT\r\n",
}

local function reply(word, is_head)
  local answer = answers[word] or UNAVAILABLE
  return ("HTTP/1.1 %s\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n%s\r\n%s"):format(
    answer[1], #answer[2] + 1, fields[word] or "", is_head and "" or answer[2] .. "\n")
end

local function denied(word, reason, is_head)
  return nil, ps.deny { reason = reason or word, reply = reply(word, is_head) }
end

-- "host:port" -> host, port; nil when it is none. IPv6 stands in brackets.
local function parse_target(target)
  local host, port = target:match "^%[([%x:.]+)%]:(%d+)$"
  if host and not (host:find(":", 1, true) and cidr.bytes(host)) then return nil end
  if not host then host, port = target:match "^([%w_.-]+):(%d+)$" end
  if not host or #port > 5 or tonumber(port) < 1 or tonumber(port) > 65535 then return nil end
  return host, tonumber(port)
end

-- The value of a field that may be there once; nil without it; false when it is there twice.
local function single(head, name)
  local value
  for i = 1, head.n do
    if head.names[i] == name then
      if value then return false end
      value = head.values[i]
    end
  end
  return value
end

-- Can this head be taken in one way only?
local function is_sound(head)
  local host = single(head, "host")
  if host == false or (host == nil and not head.first:find " HTTP/1%.0$") then return false end
  local length = http1.length(head)
  return single(head, "proxy-authorization") ~= false and (length == nil or length == 0)
end

-- user, password of a field of the scheme Basic, or nil
local function credentials(value)
  local scheme, text = (value or ""):match "^(%a+) +(%S+)$"
  if not scheme or scheme:lower() ~= "basic" then return nil end
  return (base64.decode(text) or ""):match "^([^:]*):(.*)$"
end

local function is_welcome(conn, head, check)
  if not check then return true end
  local user, password = credentials(single(head, "proxy-authorization"))
  if not user or not check(user, password) then return false end
  conn:tag("user", user)
  return true
end

local function read_head(conn)
  local first = conn:peek(1)
  if first and not first:find "[%w\r\n!#$%%&'*+.^_`|~-]" then return denied("bad", "bad_request") end -- SOCKS, or TLS
  local head, why = http1.read_head({ line = function(_, max) return conn:take_line(max) end }, HEAD_MAX)
  if head then return head end
  if why == "eof" or why == "closed" then return nil, ps.deny { reason = why } end
  if why == "timeout" then return denied("timeout_request", "timeout") end
  return denied(why, why == "bad" and "bad_request" or why)
end

local function read(conn, check)
  local head, decision = read_head(conn)
  if not head then return nil, decision end
  local method = http1.method(head)
  if method and method ~= "CONNECT" then return denied("method", "method", method == "HEAD") end
  if not method or not is_sound(head) then return denied("bad", "bad_request") end
  if not is_welcome(conn, head, check) then return denied "login" end
  local host, port = parse_target(head.first:match "^CONNECT (%S+) ")
  if not host then return denied("bad", "bad_request") end
  return host, port
end

return options.constructor(call, names, function(o)
  return proxy_server.policy(o, {
    read = read,
    reply = reply,
    success = "HTTP/1.1 200 Connection established\r\n\r\n",
  })
end)
