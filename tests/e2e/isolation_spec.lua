-- What a policy does wrong costs the connection it does it for, and no other: every kind of hook, every kind of wrong.
-- In each case one worker serves a bystander all the while, who has to get an answer after each victim.
local e2e = require "tests.e2e.support.case"
local case = e2e.case

-- ---- what a hook may do wrong ----

-- Each is the body of a function of `conn`; `loop` is an endless one.
local wrongs = {
  { "an endless loop", "loop()" },
  { "an endless loop under pcall", "while true do pcall(loop) end" },
  { "an endless loop under xpcall, whose handler loops", "while true do xpcall(loop, loop) end" },
  { "an endless loop in nested coroutines", "coroutine.wrap(function() coroutine.wrap(loop)() end)()" },
  { "an endless loop that catches its end in nested coroutines",
    "while true do pcall(coroutine.wrap(function() while true do pcall(loop) end end)) end" },
  { "a generator that never ends",
    "for _ in coroutine.wrap(function() while true do coroutine.yield(1) end end) do end" },
  { "an endless __index", "return setmetatable({}, { __index = loop }).x" },
  { "an endless __lt", "local o = setmetatable({}, { __lt = loop }) return o < o" },
  { "an endless __tostring", "return tostring(setmetatable({}, { __tostring = loop }))" },
  { "an endless comparison in table.sort", "table.sort({ 3, 1, 2 }, loop)" },
  { "an endless gsub callback", "return (('abc'):gsub('%w', loop))" },
  { "a string of a gigabyte", "return #('x'):rep(1e9)" },
  { "a string that doubles", "local s = 'x' while true do s = s .. s end" },
  { "endless recursion", "local function f() return 1 + f() end return f()" },
  { "endless recursion through pcall", "local function f() return pcall(f), error 'deep' end f() error 'deep'" },
  { "endless recursion through metamethods",
    "local t = setmetatable({}, {}) getmetatable(t).__index = function(_, k) return t[k .. 1] end return t.x" },
  { "an error without a value", "error()" },
  { "an error that is a table", "error {}" },
  { "an error that is a number", "error(42)" },
  { "an error that is userdata", "error(conn)" },
  { "an error whose __tostring fails", "error(setmetatable({}, { __tostring = error }))" },
  { "an error whose __tostring loops", "error(setmetatable({}, { __tostring = loop }))" },
  { "an error in an error handler", "local _, e = xpcall(error, function() error 'again' end) error(e or 'x')" },
  { "a yield to nobody", "coroutine.yield(1, 2, 3)", yields = true },
  { "a use of nothing", "return conn.nothing.at.all" },
  { "a bad argument to a method", "conn:limit { sideways = 1 }" },
}

local prelude = [[
  local ps = require "penstock"
  local function loop() while true do end end
  local wrongs = { %s }
  -- Victims are those from the second on that are told so; the first is the bystander.
  local function wrong(conn) return wrongs[conn.seq - 1] end
]]

local function prelude_with(list)
  local functions = {}
  for i, entry in ipairs(list) do functions[i] = ("function(conn) %s end"):format(entry[2]) end
  return prelude:format(table.concat(functions, ",\n"))
end

-- ---- the kinds of hooks ----

local function expect_both_reset(client, upstream)
  client:expect_reset()
  upstream:expect_reset()
end

-- A victim that the upstream must have seen.
local function relayed(start_with)
  return function(t, p, server)
    local client, upstream = t:pair(p, server)
    if start_with then start_with(client, upstream) end
    expect_both_reset(client, upstream)
  end
end

local function turned_away(t, p) t:connect(p):expect_reset() end

-- One whose connection is not concerned: it goes on, and ends when its client does.
local function unharmed(t, p, server)
  local client, upstream = t:expect_echo(p, server)
  client:finish()
  upstream:expect_eof()
  upstream:close()
  client:expect_eof()
end

local function from_client(client) client:send "x\n" end
local function from_upstream(_, upstream) upstream:send "x\n" end

-- name in the log -> the policy's hooks, what the victim sees, and how its access line reads
local kinds = {
  ["accept hook"] = { "accept = function(conn) local f = wrong(conn) if f then f(conn) end end", turned_away },
  ["connect hook"] = { "connect = function(conn) local f = wrong(conn) if f then f(conn) end end", turned_away },
  ["failed hook"] = {
    "connect = function(conn) if wrong(conn) then return DEAD end end, failed = function(conn) wrong(conn)(conn) end",
    turned_away },
  ["connected hook"] = { "connected = function(conn) local f = wrong(conn) if f then f(conn) end end", relayed() },
  ["handshake hook"] = { "handshake = function(conn) local f = wrong(conn) if f then f(conn) end end", relayed() },
  ["serve hook"] = {
    [[serve = function(conn, client)
      local f = wrong(conn)
      if f then f(conn) end
      for line, eol in client:lines() do client:write("served ", line, eol) end
    end]], turned_away },
  ["data hook"] = { "data = function(conn) local f = wrong(conn) if f then f(conn) end end", relayed(from_client) },
  ["up filter"] = {
    [[filter = { up = function(conn, rd, wr)
      local f = wrong(conn)
      for line, eol in rd:lines() do if f then f(conn) end wr:write(line, eol) end
    end }]], relayed(from_client) },
  ["down filter"] = {
    [[filter = { down = function(conn, rd, wr)
      local f = wrong(conn)
      for line, eol in rd:lines() do if f then f(conn) end wr:write(line, eol) end
    end }]], relayed(from_upstream) },
  ["up filter in a coroutine of its own"] = {
    [[filter = { up = function(conn, rd, wr)
      local f = wrong(conn)
      coroutine.wrap(function() for line, eol in rd:lines() do if f then f(conn) end wr:write(line, eol) end end)()
    end }]], relayed(from_client), log = "up filter", yields = true },
  ["close hook"] = { "close = function(conn) local f = wrong(conn) if f then f(conn) end end", unharmed,
    reason = "eof" },
  ["spawned function"] = {
    "accept = function(conn) local f = wrong(conn) if f then ps.spawn(f, conn) end end", unharmed, reason = "eof" },
  ["timer"] = {
    "accept = function(conn) local f = wrong(conn) if f then ps.after(0, f, conn) end end", unharmed, reason = "eof" },
  ["conn:after function"] = {
    [[connected = function(conn)
      local f = wrong(conn)
      if f then conn:after(0, function() f(conn) end):wait() end
    end]], unharmed, reason = "eof" },
}

-- ---- the cases ----

local Bystander = {}
Bystander.__index = Bystander

local function new_bystander(t, p, server, serves)
  local self = setmetatable({ serves = serves, n = 0 }, Bystander)
  if serves then
    self.client = t:connect(p)
  else
    self.client, self.upstream = t:pair(p, server)
  end
  self:demand_service()
  return self
end

function Bystander:demand_service()
  self.n = self.n + 1
  local text = ("line %d\n"):format(self.n)
  self.client:send(text)
  if self.serves then return self.client:expect("served " .. text) end
  self.upstream:expect(text)
  self.upstream:send(text)
  self.client:expect(text)
end

-- How many script errors the log tells of, those only counted included.
local function errors_told(p)
  local n = 0
  for _ in p.err:gmatch "script error in the " do n = n + 1 end
  for more in p.err:gmatch "script error came (%d+) more time" do n = n + tonumber(more) end
  return n
end

local function start(t, hooks, list)
  local server = t:listen()
  local target = hooks:find "serve =" and "-" or server.address
  local text = ("local DEAD = %q\n"):format(t:refusing().address) .. prelude_with(list) .. "return { " .. hooks .. " }"
  local p = t:penstock { "-p", t:file("policy.lua", text), "127.0.0.1:0", target }
  return p, server
end

local function run(t, name, kind, list)
  t:expect_error "script error"
  t:allow_error "worker %d+ has been in" -- the watchdog, where all is slow
  local p, server = start(t, kind[1], list)
  local bystander = new_bystander(t, p, server, name == "serve hook")
  for i, entry in ipairs(list) do
    local ok, why = pcall(kind[2], t, p, server)
    if not ok then error(("%s: %s"):format(entry[1], tostring(why)), 0) end
    local line = p:access(i)
    local reason = kind.reason or "script"
    if line.reason ~= reason then
      error(("%s ended with reason=%s, not %s"):format(entry[1], line.reason, reason), 0)
    end
    bystander:demand_service()
  end
  p:log("script error in the (" .. (kind.log or name) .. ")")
  bystander.client:close()
  if bystander.upstream then bystander.upstream:close() end
  p:stop()
  assert.equal(#list, errors_told(p), "errors told of:\n" .. p.err:sub(-3000))
end

describe("isolation:", function()
  for name, kind in pairs(kinds) do
    case("whatever the " .. name .. " does wrong ends as it should, and others are served", function(t)
      local list = {}
      for _, entry in ipairs(wrongs) do -- in a coroutine of one's own a yield is right
        if not (entry.yields and kind.yields) then list[#list + 1] = entry end
      end
      run(t, name, kind, list)
    end)
  end

  case("hogs of memory cost their connection", function(t)
    run(t, "data hook", kinds["data hook"], {
      { "tables", "local all = {} for i = 1, 1e9 do all[i] = { i } end" },
      { "one table", "local all = {} for i = 1, 1e9 do all[i] = i end" },
      { "closures", "local all = {} for i = 1, 1e9 do all[i] = function() return i, all end end" },
      { "strings", "local all = {} for i = 1, 1e9 do all[i] = ('x'):rep(1e6) .. i end" },
      { "coroutines", "local all = {} for i = 1, 1e9 do all[i] = coroutine.create(loop) end" },
      { "a buffer", "local b = require 'string.buffer'.new() while true do b:put(('x'):rep(1e6)) end" },
      { "a hog under pcall", [[
        local all = {}
        while true do pcall(function() for i = 1, 1e9 do all[#all + 1] = ('x'):rep(1e6) .. i end end) end]] },
    })
  end)

  for _, method in ipairs { "close", "reset" } do
    for name, kind in pairs(kinds) do
      if name ~= "close hook" then
        case(("conn:%s() in the middle of the %s, and whatever comes after it, ends it once"):format(method, name),
          function(t)
            t:expect_error "script error"
  t:allow_error "worker %d+ has been in" -- the watchdog, where all is slow
            local after = {
              { "nothing", "" }, { "an error", "error 'after'" }, { "an endless loop", "loop()" },
              { "a wait", "ps.sleep(3600)" }, { "waits that are caught", "while true do pcall(ps.sleep, 3600) end" },
              { "again", "conn:close() conn:reset() conn:close()" },
              { "a dial", 'ps.tcp.connect("127.0.0.1:1")' },
            }
            local list = {}
            for i, entry in ipairs(after) do
              list[i] = { entry[1], ("assert(conn:%s()) %s"):format(method, entry[2]) }
            end
            local p, server = start(t, kind[1], list)
            local bystander = new_bystander(t, p, server, name == "serve hook")
            for i, entry in ipairs(list) do
              local client = t:connect(p)
              client:offer "x\n" -- it may be closed already
              local upstream = name == "down filter" and t:accept(server) or nil
              if upstream then upstream:offer "x\n" end
              client:read_all()
              local line = p:access(i)
              if line.reason ~= "closed" then error(("%s: reason=%s"):format(entry[1], line.reason), 0) end
              bystander:demand_service()
            end
          end)
      end
    end
  end

  case("a hook that will not end with its connection is left behind", function(t)
    local p, server = start(t, "data = function(conn) local f = wrong(conn) if f then f(conn) end end", {
      { "waits", "while true do pcall(ps.sleep, 3600) end" },
      { "waits in coroutines", "while true do pcall(coroutine.wrap(function() ps.sleep(3600) end)) end" },
    })
    local bystander = new_bystander(t, p, server)
    for i = 1, 2 do
      local client, upstream = t:pair(p, server)
      client:send "x"
      upstream:reset()
      client:expect_reset()
      p:expect_end({ reason = "reset", side = "upstream" }, i)
      bystander:demand_service()
    end
  end)

  case("what a policy does to Lua's libraries stays in its VM and hurts no C", function(t)
    local p, server = start(t, "data = function(conn) local f = wrong(conn) if f then f(conn) end end, " ..
      "close = function(conn) conn:tag('late', 1) end", {
      { "the libraries", [[
        for name, library in pairs { string = string, table = table, math = math, os = os, coroutine = coroutine } do
          for key in pairs(library) do library[key] = function() return nil end end
        end
        string.gsub, tostring, error, pairs, ipairs, type = nil, nil, nil, nil, nil, nil
        setmetatable, pcall, rawget, select, unpack, require = nil, nil, nil, nil, nil, nil
        conn.log.info("STILL %s %d", "here", 1)
        conn:tag("key", "value")
        conn:nonsense()]] },
      { "the globals", "local G = _G for key in G.next, G do G[key] = 1 end conn.log.info 'GLOBALS' conn:nonsense()" },
      { "an error afterwards", "conn.log.info 'AFTERWARDS' local x = nil + 1" },
    })
    t:expect_error "script error"
  t:allow_error "worker %d+ has been in" -- the watchdog, where all is slow
    local bystander = new_bystander(t, p, server)
    for i = 1, 3 do
      local client, upstream = t:pair(p, server)
      client:send "x"
      expect_both_reset(client, upstream)
      p:expect_end({ reason = "script", late = "1" }, i)
      bystander:demand_service()
    end
    p:log "(STILL here 1)"
    p:log "(GLOBALS)"
    p:log "(AFTERWARDS)"
  end)

  case("there is no way out of the sandbox", function(t)
    local p, server = start(t, [[accept = function(conn)
      local function closed(what, ok) if ok then error("open: " .. what) end end
      local function bytecode() return string.dump(function() return 1 end) end
      closed("load", load(bytecode()))
      local code = bytecode()
      closed("load in parts", load(function()
        local part = code
        code = nil
        return part
      end))
      closed("load as binary", load(bytecode(), "x", "b"))
      closed("load as binary or text", load(bytecode(), "x", "bt"))
      closed("loadstring", loadstring(bytecode()))
      closed("io", io or package.loaded.io or pcall(require, "io"))
      closed("ffi", ffi or package.loaded.ffi or package.preload.ffi or pcall(require, "ffi"))
      closed("jit", jit.on or jit.off or jit.util or pcall(require, "jit.util") or pcall(require, "jit.opt"))
      closed("loadlib", package.loadlib or package.cpath)
      closed("searchers", #package.loaders ~= 3)
      closed("newproxy", newproxy)
      closed("os", os.execute or os.exit or os.remove or os.rename or os.tmpname or os.setlocale)
      for key in pairs(debug) do closed("debug." .. key, key ~= "traceback") end
      closed("setfenv of the thread", pcall(setfenv, 0, {}))
      closed("setfenv of the thread as a text", pcall(setfenv, "0", {}))
      closed("setfenv of the thread as a fraction", pcall(setfenv, 0.5, {}))
      closed("setfenv of the thread, wrapped around", pcall(setfenv, 2 ^ 32, {}))
      closed("setfenv of C", pcall(setfenv, print, {}) and pcall(setfenv, pcall, {}))
      closed("getfenv", getfenv(0) ~= _G or getfenv(ps.sleep) ~= _G)
      closed("the table of primitives", getfenv(conn.close) ~= _G)
      closed("metatables", type(getmetatable(conn)) == "table" or type(getmetatable(ps.PASS)) == "table")
      closed("metatables of decisions", type(getmetatable(ps.deny {})) == "table")
      closed("the metatable of signals", type(getmetatable(ps.signal())) == "table")
      closed("the metatable of tasks", type(getmetatable(ps.spawn(function() end))) == "table")
      closed("the metatable of sockets", type(getmetatable(ps.tcp.new())) == "table")
      closed("the metatable of stores", type(getmetatable(ps.store "x")) == "table")
      closed("the metatable of buckets", type(getmetatable(ps.bucket("x", { rate = 1 }))) == "table")
      closed("the metatable of metrics", type(getmetatable(ps.counter "x")) == "table")
      closed("the metatable of coroutines", getmetatable(coroutine.running()))
      local co = coroutine.running()
      closed("resuming oneself", coroutine.resume(co))
      closed("resuming from inside", coroutine.wrap(function() return (coroutine.resume(co)) end)())
      closed("a method on a false self", pcall(conn.close, setmetatable({}, {})) or pcall(conn.close, co))
      closed("a method on another kind", pcall(ps.tcp.new().close, conn) or pcall(conn.close, ps.tcp.new()))
      closed("dofile of bytecode", pcall(dofile, "/proc/self/exe"))
      closed("a buffer's pointer", pcall(function() return require "string.buffer".new():ref() end))
      conn:tag("checked", "yes")
    end]], {})
    local client, upstream = t:expect_echo(p, server)
    client:close()
    upstream:close()
    p:expect_end { checked = "yes" }
  end)

  case("the same error in many hooks is logged once with its count", function(t)
    t:expect_error "script error"
  t:allow_error "worker %d+ has been in" -- the watchdog, where all is slow
    local p = start(t, "accept = function(conn) error 'boom' end", {})
    for i = 1, 40 do
      t:connect(p):expect_reset()
      p:access(i)
    end
    p:stop()
    assert.equal(40, errors_told(p))
    local _, lines = p.err:gsub("boom", "")
    assert.is_true(lines <= 4, p.err)
  end)
end)
