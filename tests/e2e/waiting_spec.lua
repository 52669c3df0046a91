-- Which hook of a connection waits, and where: "waiting" of GET /v1/connections.
local e2e = require "tests.e2e.support.case"
local admin = require "tests.e2e.support.admin"
local null = require("cjson").null
local case, sys = e2e.case, e2e.sys

local function start(t, policy)
  local server, at = t:listen(), "unix:" .. t:folder() .. "/admin.sock"
  local path = t:file("route.lua", 'local ps = require "penstock"\n' .. policy)
  return t:penstock { "--admin", at, "-p", path, "127.0.0.1:0", server.address }, at, server
end

-- Demands that the first connection comes to wait in this hook at this line of this file.
local function expect_waiting(t, at, hook, place)
  local seen
  sys.wait_until(function()
    local c = admin.conns(t, at)[1]
    local waiting = c and c.waiting
    seen = waiting and waiting ~= null and { waiting.hook, waiting.line:match "([^/]+)$" }
    return seen and seen[1] == hook and seen[2] == place
  end)
  assert.same({ hook, place }, seen)
end

describe("the waiting hook of a connection", function()
  case("is told with its line while it waits, and not afterwards", function(t)
    local p, at, server = start(t, [[
      return { connect = function(conn)
        ps.sleep(0)
        conn:peek(4)
      end }
    ]])
    local client = t:connect(p)
    expect_waiting(t, at, "connect", "route.lua:4")
    client:send "ping"
    t:accept(server):expect "ping"
    assert.equal(null, admin.conns(t, at)[1].waiting)
  end)

  case("is told where it waits by the library: in ps.race, in functions of its own, in a list of policies", function(t)
    local server, at = t:listen(), "unix:" .. t:folder() .. "/admin.sock"
    local path = t:file("list.lua", ([[
local ps = require "penstock"
local function pause()
  ps.race(function() ps.sleep(60) end, function() ps.sleep(60) end)
end
ps.listen { bind = "127.0.0.1:0", to = %q, policy = { { connect = function() end }, {
  connect = function() pause() end,
} } }
]]):format(server.address))
    local p = t:penstock { "--admin", at, "run", path }
    local client = t:connect(p)
    expect_waiting(t, at, "connect", "list.lua:3")
    client:reset()
  end)

  case("is told for policies in a folder that is called as the library is", function(t)
    local server, at = t:listen(), "unix:" .. t:folder() .. "/admin.sock"
    assert(os.execute(("mkdir %s/penstock"):format(t:folder())))
    t:file("penstock/route.lua", [[
      local ps = require "penstock"
      return { connect = function(conn) conn:peek(4) end }
    ]])
    local command = ("cd %s && exec %s --admin %s -p penstock/route.lua 127.0.0.1:0 %s"):format(t:folder(),
      os.getenv "PENSTOCK", at, server.address)
    local p = t:spawn { "sh", "-c", command }
    local client = t:connect(p:wait_for("err", "listening on (%S+)"))
    expect_waiting(t, at, "connect", "route.lua:2")
    client:close()
  end)

  case("may be a filter", function(t)
    local p, at, server = start(t, [[
      return { filter = { up = function(_, rd, wr)
        for line, eol in rd:lines() do wr:write(line, eol) end
      end } }
    ]])
    local client, upstream = t:pair(p, server)
    client:send "a\n"
    upstream:expect "a\n"
    expect_waiting(t, at, "filter.up", "route.lua:3")
  end)

  case("is none where there is no policy", function(t)
    local server, at = t:listen(), "unix:" .. t:folder() .. "/admin.sock"
    local p = t:penstock { "--admin", at, "127.0.0.1:0", server.address }
    t:expect_echo(p, server)
    assert.equal(null, admin.conns(t, at)[1].waiting)
  end)
end)
