-- The module "penstock.test": policies behind a virtual network. Run once for each `penstock test` by
-- core/script/test_command.c, which passes the C primitives (lib_test.c).
local core = ...
if type(core) ~= "table" then error("penstock.test is for specs; run them with: penstock test SPEC", 0) end
local check = require "penstock.check"

local t = { seed = 1 }

local WINDOW = 65536
local START = 1767225600 -- 2026-01-01 00:00 UTC: the clock of a policy that was not told a time

local worlds = {} -- every policy loaded by this test

-- What C answers: a value, or nil and what is wrong with the call.
local function must(call, level, value, why)
  if value == nil then error(("%s: %s"):format(call, why), level + 1) end
  return value
end

local function expect(call, value, kind, level)
  if type(value) ~= kind then
    error(("%s expects a %s, got %s"):format(call, kind, value == nil and "nothing" or type(value)), level + 1)
  end
  return value
end

-- ---- script errors ----

-- Does p expect this error of a hook?
local function expected(p, text)
  for _, e in ipairs(p._expected) do
    if text:find(e.pattern) then
      e.seen = true
      return true
    end
  end
  return false
end

-- Raises, at `level` of the caller, what hooks have raised since the last look.
local function look(level)
  for _, p in ipairs(worlds) do
    for _, text in ipairs(core.errors(p._world)) do
      if not expected(p, text) then error(text, level + 1) end
    end
  end
end

-- ---- both sides of a connection ----

local Peer = {}

-- One end, as the spec plays it. `p` is its policy.
local function peer(p, handle, class)
  return setmetatable({ _p = p, _handle = handle, _read = 0 }, class)
end

local function state(c)
  return core.state(c._p._world, c._handle)
end

-- What both kinds of ends do; an error is the fault of who called the caller.
local acts = {}

function acts.send(c, bytes)
  if type(bytes) == "number" then bytes = tostring(bytes) end
  expect("send(bytes)", bytes, "string", 3)
  local _, _, open = state(c)
  if not open then error("send(bytes): this side has ended already", 3) end
  core.send(c._p._world, c._handle, bytes)
end

function acts.finish(c) core.finish(c._p._world, c._handle) end
function acts.reset(c) core.reset(c._p._world, c._handle) end
function acts.stop_reading(c) core.reading(c._p._world, c._handle, false) end
function acts.start_reading(c) core.reading(c._p._world, c._handle, true) end

for name, act in pairs(acts) do
  Peer[name] = function(self, ...)
    act(self, ...)
    look(2)
    return self
  end
end

function Peer:received()
  return core.received(self._p._world, self._handle, 0)
end

function Peer:read()
  local bytes = core.received(self._p._world, self._handle, self._read)
  self._read = self._read + #bytes
  return bytes
end

function Peer:ended()
  return (state(self))
end

function Peer:unsent()
  local _, unsent = state(self)
  return unsent
end

Peer.__index = Peer

-- ---- clients ----

local Client = setmetatable({}, Peer)

-- The access line of its connection as a table, or nil while there is none.
function Client:access()
  local _, _, _, id = state(self)
  return id and core.access(self._p._world, id)
end

function Client:closed()
  local line = self:access()
  if line then return line.reason, line.detail end
end

function Client.__index(c, key)
  if key == "conn" then
    local _, _, _, id = state(c)
    return id
  end
  return Client[key] or Peer[key]
end

-- ---- upstreams ----

local Upstream = {}

-- The nth connection as a peer, or nil.
local function connection(u, n)
  local handle = core.connection(u._p._world, u._handle, n)
  if handle and not u._peers[n] then u._peers[n] = peer(u._p, handle, Peer) end
  return u._peers[n]
end

local function count(u)
  local _, n = core.connection(u._p._world, u._handle, 0)
  return n
end

local function latest(u)
  return connection(u, count(u))
end

function Upstream:accept()
  local c = connection(self, self._accepted + 1)
  if c then self._accepted = self._accepted + 1 end
  return c
end

function Upstream:received()
  local c = latest(self)
  return c and c:received() or ""
end

function Upstream:read()
  local c = latest(self)
  return c and c:read() or ""
end

function Upstream:ended()
  local c = latest(self)
  return c and c:ended()
end

function Upstream:unsent()
  local c = latest(self)
  return c and c:unsent() or 0
end

for name, act in pairs(acts) do
  Upstream[name] = function(self, ...)
    local c = latest(self)
    if not c then error(("%s: nobody has connected to %s"):format(name, self.address), 2) end
    act(c, ...)
    look(2)
    return self
  end
end

function Upstream.__index(u, key)
  if key ~= "connections" then return Upstream[key] end
  local all = {}
  for i = 1, count(u) do all[i] = connection(u, i) end
  return all
end

-- ---- policies ----

local Policy = {}
Policy.__index = Policy

local function window_of(options, call, level)
  local window = options.window
  if window == nil then return WINDOW end
  if type(window) ~= "number" or window < 1 then
    error(call .. ": window is a number of bytes, at least 1", level + 1)
  end
  return window
end

local upstream_call = 'p:upstream("host:port", { window = bytes })'

function Policy:upstream(address, options)
  expect(upstream_call, address, "string", 2)
  options = options or {}
  check.keys(options, upstream_call, { "window" }, 2)
  local handle = must(upstream_call, 2, core.upstream(self._world, address, window_of(options, upstream_call, 2)))
  return setmetatable({ _p = self, _handle = handle, _peers = {}, _accepted = 0, address = address }, Upstream)
end

local client_call = 'p:client{ ip = "203.0.113.7", port = 50000, to = "listener", window = bytes }'

function Policy:client(options)
  options = options or {}
  check.keys(options, client_call, { "ip", "port", "to", "window" }, 2)
  local port = options.port
  if port ~= nil and (type(port) ~= "number" or port < 1 or port > 65535) then
    error(client_call .. ": port is a number from 1 to 65535", 2)
  end
  local ip = expect(client_call .. ": ip", options.ip or "192.0.2.1", "string", 2)
  if options.to ~= nil then expect(client_call .. ": to", options.to, "string", 2) end
  local window = window_of(options, client_call, 2)
  local handle = must(client_call, 2, core.client(self._world, ip, port, window, options.to))
  look(2)
  return peer(self, handle, Client)
end

local dns_call = 'p:dns{ ["name"] = { "10.0.0.5" }, ["other"] = "nxdomain" }'

function Policy:dns(names)
  expect(dns_call, names, "table", 2)
  for name, answer in pairs(names) do
    if type(answer) ~= "table" and type(answer) ~= "string" then
      error(dns_call .. ": an answer is a list of addresses or a word", 2)
    end
    if type(answer) == "string" and answer:find "[%.:]" then answer = { answer } end
    must(dns_call, 2, core.dns(self._world, tostring(name), answer))
  end
  return self
end

local fail_call = 'p:fail("host:port", "refused", times)'

function Policy:fail(address, word, times)
  expect(fail_call, address, "string", 2)
  expect(fail_call, word, "string", 2)
  if times ~= nil and (type(times) ~= "number" or times < 1) then error(fail_call .. ": times is at least 1", 2) end
  must(fail_call, 2, core.fail(self._world, address, word, times or 0))
  return self
end

function Policy:log()
  return core.log(self._world)
end

function Policy:expect_error(pattern)
  expect("p:expect_error(pattern)", pattern, "string", 2)
  local where = debug.getinfo(2, "Sl")
  table.insert(self._expected, { pattern = pattern, where = ("%s:%d"):format(where.short_src, where.currentline) })
  return self
end

-- ---- loading ----

local load_call = 't.load("policy.lua", { to =, seed =, time =, name =, unsafe =, limits = {…}, timeouts = {…} })'
local load_keys = { "to", "seed", "time", "name", "unsafe", "limits", "timeouts" }
local limit_keys = { "conns", "per_ip", "rate", "up", "down" }
local timeout_keys = { "connect", "handshake", "first_byte", "idle", "half_closed", "life" }

-- Copies the numbers of options[key] into flat, text turned into a number by parse.
local function flatten(flat, options, key, names, scale, parse)
  local group = options[key]
  if group == nil then return end
  check.keys(group, load_call .. ": " .. key, names, 3)
  for name, value in pairs(group) do
    local n = type(value) == "number" and value * scale or parse(tostring(value))
    if not n or n < 0 then error(("%s: %s.%s cannot be %s"):format(load_call, key, name, tostring(value)), 3) end
    flat[name] = n
  end
end

local function exists(path)
  local file = io.open(path)
  if file then file:close() end
  return file ~= nil
end

-- `path` itself, or beside the spec that is `level` calls away.
local function find(path, level)
  if exists(path) or path:sub(1, 1) == "/" then return path end
  local beside = (debug.getinfo(level + 1, "S").source:match "^@(.*/)" or "") .. path
  return exists(beside) and beside or path
end

function t.load(path, options)
  expect(load_call, path, "string", 2)
  options = options or {}
  check.keys(options, load_call, load_keys, 2)
  local flat = {
    path = find(path, 2), to = options.to, name = options.name, unsafe = options.unsafe and 1 or 0,
    own = (options.to or options.name or options.limits or options.timeouts) and 1 or 0,
    seed = options.seed or t.seed, start_ms = ((options.time or START) + core.elapsed()) * 1000,
  }
  flatten(flat, options, "limits", limit_keys, 1, core.size)
  flatten(flat, options, "timeouts", timeout_keys, 1000, core.time_ms)
  local world, why = core.open(flat)
  if not world then error(why, 2) end
  local p = setmetatable({ path = flat.path, _world = world, _expected = {} }, Policy)
  worlds[#worlds + 1] = p
  return p
end

-- ---- time ----

function t.advance(seconds)
  local ms = type(seconds) == "number" and seconds * 1000 or type(seconds) == "string" and core.time_ms(seconds)
  if not ms or not (ms >= 0 and ms < 1e15) then
    error('t.advance(seconds): a number of seconds, or "200ms", "5s", "2m", "1h"', 2)
  end
  core.advance(math.floor(ms + 0.5))
  look(2)
end

function t.trace()
  return core.trace()
end

-- ---- splits ----

-- The place in a spec that is on the stack now, for an error that will lose it.
local function place()
  for level = 3, 100 do
    local info = debug.getinfo(level, "Sl")
    if not info then return "" end
    local ours = info.source:find "penstock/test" or info.source:find "luassert" or info.source:find "/busted/"
    if info.what ~= "C" and info.currentline > 0 and not ours then
      return ("%s:%d: "):format(info.short_src, info.currentline)
    end
  end
  return ""
end

-- For xpcall: the error with the split in its message.
local function with_split(parts)
  local shown = {}
  for i, part in ipairs(parts) do shown[i] = ("%q"):format(part):gsub("\n", "n"):gsub("\r", "\\r") end
  local split = #parts > 8 and "byte by byte" or table.concat(shown, " | ")
  return function(err)
    local function note(text)
      local where, rest = text:match "^([^\n]-:%d+: )(.*)$"
      return ("%s[split: %s] %s"):format(where or place(), split, rest or text)
    end
    if type(err) == "string" then return note(err) end
    if type(err) == "table" and err.message ~= nil then err.message = note(tostring(err.message)) end
    return err
  end
end

local function close_after(n)
  for i = #worlds, n + 1, -1 do
    core.close(worlds[i]._world)
    worlds[i] = nil
  end
end

local finish_of -- below

local function try(fn, parts)
  local before = #worlds
  local ok, err = xpcall(function()
    fn(parts)
    finish_of(before + 1)
  end, with_split(parts))
  close_after(before)
  if not ok then error(err, 0) end
end

function t.splits(input, fn)
  expect("t.splits(input, function(parts) … end)", input, "string", 2)
  expect("t.splits(input, function(parts) … end)", fn, "function", 2)
  for i = 1, #input - 1 do try(fn, { input:sub(1, i), input:sub(i + 1) }) end
  local bytes = {}
  for i = 1, #input do bytes[i] = input:sub(i, i) end
  try(fn, bytes)
end

-- ---- for the runner ----

-- Raises when a hook of the policies from number `first` on has not failed as it was expected to.
function finish_of(first)
  for i = first, #worlds do
    for _, e in ipairs(worlds[i]._expected) do
      if not e.seen then error(("%s: no hook raised an error with %q"):format(e.where, e.pattern), 0) end
    end
  end
end

local runner = {}

function runner.begin()
  worlds = {}
  core.begin()
end

function runner.finish()
  look(0)
  finish_of(1)
end

return t, runner
