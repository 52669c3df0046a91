-- STARTTLS: what is said in the clear before a ClientHello, in the server's place to the client and in the client's
-- place to the upstream. The dialogues are modules of penstock.starttls.*, which know streams and nothing else:
--
--   serve(io, options, random) -> facts  waits until the client has asked for TLS, and grants it
--   ask(io, facts) -> true               makes the upstream ready for the same client's ClientHello
--   between(client, upstream) -> facts   instead of both, where only the upstream can say what is said first
--
-- Each returns nil, word or nil, text when that fails. facts.direct: the client has begun with TLS at once.
local check = require "penstock.check"
local names = require "penstock.starttls.names".all
local nearest = require "penstock.nearest"
local error, ipairs, next, require, setmetatable, type = error, ipairs, next, require, setmetatable, type
local concat = table.concat

local hello_call = 'conn:hello{ starttls = "postgres" }'
local HANDSHAKE_RECORD = "\22"

-- What the words of a read mean when it is the upstream that was read.
local words = {
  eof = "it has ended the connection",
  too_long = "its answer is too long",
  mismatch = "its answer is another protocol's",
}

local is_name = {}
for _, name in ipairs(names) do is_name[name] = true end

-- Most policies need none of them.
local protocols = setmetatable({}, { __index = function(loaded, name)
  loaded[name] = require("penstock.starttls." .. name)
  return loaded[name]
end })

-- ---- a side, as the dialogues see it ----

local Io = {}
Io.__index = Io

-- Lines end with CR LF, and nothing else does.
function Io:line(max)
  self.touched = true
  local line, eol = self.stream:line(max)
  if not line then return nil, eol end
  if eol ~= "\r\n" then return nil, eol == "" and "eof" or "mismatch" end
  return line
end

function Io:exactly(n)
  self.touched = true
  return self.stream:exactly(n)
end

function Io:upto(delimiter, max)
  self.touched = true
  return self.stream:upto(delimiter, max)
end

function Io:peek(n) return self.stream:peek(n) end

function Io:write(...)
  self.touched = true
  return self.stream:write(...)
end

-- Has the other side sent nothing beyond what was read? What it says behind its last word in the clear is taken by
-- nobody: it would pass for encrypted (CVE-2011-0411, CVE-2021-23214, CVE-2021-23222).
function Io:is_quiet()
  local _, n = self.pending(self.stream)
  return n == 0
end

-- install(ps, core) -> hello(conn, options), replay(hook, conn, client, upstream)
return function(ps, core)
  local conn_core, pending = core.conn, core.stream.pending
  local preambles = setmetatable({}, { __mode = "k" }) -- conn -> { name =, io =, facts = } (nil: it got no further)

  local function io_of(stream)
    return stream and setmetatable({ stream = stream, pending = pending }, Io)
  end

  local function look(conn)
    local ok, hello, why = conn_core.hello(conn)
    if ok then return hello, why end
    return error(hello, 0)
  end

  -- What serve() of the protocol answers, or that the client has begun with TLS at once.
  local function serve(protocol, io, options)
    if protocol.client_first then
      local first, why = io:peek(1)
      if not first then return nil, why end
      if first == HANDSHAKE_RECORD then return { direct = true } end
    end
    return protocol.serve(io, options, ps.random)
  end

  local function ask(protocol, io, facts)
    if facts.direct then return true end
    local ok, why = protocol.ask(io, facts)
    if not ok then return nil, words[why] or why end
    if not io:is_quiet() then return nil, "it has sent more than its word that TLS may begin" end
    return true
  end

  -- The upstream does not do what the client was promised.
  local function fail(conn, name, why)
    conn.log.warn("%s: the upstream %s does not begin TLS (STARTTLS, %s): %s", conn.listener,
      conn.upstream and conn.upstream.addr or "-", name, why)
    conn_core.fail(conn, "starttls")
    return nil, "tls", why
  end

  local function before_upstream(conn, name, options, client)
    local protocol, io, preamble = protocols[name], io_of(client), { name = name }
    preamble.io = io
    if not protocol.serve then
      conn_core.dialogue_end(conn, false)
      error(("%s: in %s the server speaks first, with what only the real one knows: call it in the handshake hook")
        :format(hello_call, name), 3)
    end
    preambles[conn] = preamble
    local facts, why = serve(protocol, io, options)
    local hello
    if facts then hello, why = look(conn) end
    if hello then preamble.facts = facts end
    if not facts and not io.touched then preambles[conn] = nil end
    conn_core.dialogue_end(conn, preambles[conn] ~= nil)
    return hello, why
  end

  local function in_handshake(conn, name, options, client, upstream)
    local protocol, hello = protocols[name], nil
    local client_io, upstream_io = io_of(client), io_of(upstream)
    preambles[conn] = { name = name, io = client_io } -- for a second call; there is nothing to replay
    if protocol.between then
      local facts, why = protocol.between(client_io, upstream_io)
      if not facts then return nil, why end
      return look(conn)
    end
    local facts, why = serve(protocol, client_io, options)
    if facts then hello, why = look(conn) end
    if hello then
      local ok, text = ask(protocol, upstream_io, facts)
      if not ok then return fail(conn, name, text) end
    elseif client_io.touched then -- it has been spoken to in the upstream's place, and cannot go there any more
      conn_core.fail(conn, "starttls")
    end
    return hello, why
  end

  local function check_options(options)
    local name = options.starttls
    if not is_name[name or false] then
      local near = type(name) == "string" and nearest(name, names)
      error(("%s: starttls is one of %s%s"):format(hello_call, concat(names, ", "),
        near and (', did you mean "%s"?'):format(near) or ""), 4)
    end
    if options.name ~= nil and (type(options.name) ~= "string" or not options.name:find "^[%w.-]+$" or
        #options.name > 253) then
      error('conn:hello{ starttls = "smtp", name = "mail.lab" }: name is the host name to greet with', 4)
    end
    return name
  end

  local function after_starttls(conn, options)
    local name = check_options(options)
    local before = preambles[conn]
    if before and before.name ~= name then
      error(("%s: the client has been asked in the words of %s already"):format(hello_call, before.name), 3)
    end
    if before then return look(conn) end
    local client, upstream = conn_core.dialogue(conn, hello_call)
    if not client then return nil, upstream end
    if upstream then return in_handshake(conn, name, options, client, upstream) end
    return before_upstream(conn, name, options, client)
  end

  local internals = {}

  -- hello(conn, [{ starttls =, name = }]): what a TLS client says first; nil, word.
  function internals.hello(conn, options)
    options = options or {}
    check.keys(options, "conn:hello{ starttls = … }", { "starttls", "name" }, 2)
    if next(options) ~= nil then
      local answer, word, detail = after_starttls(conn, options) -- no tail call: its errors count levels
      return answer, word, detail
    end
    local ok, hello, why = conn_core.hello(conn)
    if ok then return hello, why end
    return error(hello, 2)
  end

  -- Called by C in the place of the handshake hook, which may be nil, of a connection with a preamble.
  function internals.replay(hook, conn, client, upstream)
    local preamble = preambles[conn]
    local ok, why = not preamble.io.touched, "the client was promised TLS, but has not sent a ClientHello"
    if preamble.facts then ok, why = ask(protocols[preamble.name], io_of(upstream), preamble.facts) end
    if not ok then
      fail(conn, preamble.name, why)
      return
    end
    if hook then return hook(conn, client, upstream) end
  end

  return internals
end
