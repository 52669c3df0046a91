-- penstock check: says what a file would do and what is odd about it, opens nothing.
local e2e = require "tests.e2e.support.case"
local case = e2e.case

describe("penstock check:", function()
  case("prints listeners, what differs from the defaults, and hooks with their places", function(t)
    t:file("guard.lua", "return {\n  close = function() end,\n}\n")
    local path = t:file("penstock.lua", [[
local ps = require "penstock"
ps.listen { name = "redis", bind = "127.0.0.1:6379", to = "redis.internal:6379", limits = { per_ip = 5, up = "1M" },
  timeouts = { idle = "10m", handshake = 0 }, policy = { { accept = function() end }, require "guard" } }
ps.listen { bind = ":7000-7001", to = function() return "a:1" end }
]])
    local status, err, out = t:run { "check", path }
    assert.equal("", err)
    assert.equal(0, status)
    out = out:gsub(t:folder():gsub("%p", "%%%0") .. "/", "")
    assert.equal([[
redis: 127.0.0.1:6379 -> redis.internal:6379
    limits    per_ip 5, up 1M
    timeouts  handshake off, idle 10m
    hooks     accept (penstock.lua:3), close (guard.lua:2)
0.0.0.0:7000 -> as its hooks choose
    hooks     connect (penstock.lua:4)
0.0.0.0:7001 -> as its hooks choose
    hooks     connect (penstock.lua:4)
ok: 3 listeners, 0 warnings
]], out)
  end)

  case("a file whose tasks have never begun is let go", function(t)
    local path = t:file("penstock.lua", [[
local ps = require "penstock"
ps.on_start(function() end)
ps.on_reload(function() end)
ps.on_stop(function() end)
ps.every(5, function() end)
ps.after(5, function() end)
ps.listen { bind = "127.0.0.1:0", to = "a:1" }
]])
    assert.equal(0, (t:run { "check", path }))
  end)

  case("finds a misspelt call inside a hook, also in a module", function(t)
    t:file("guard.lua", "return { accept = function(conn)\n  if conn.x then conect(conn) end\nend }\n")
    local path = t:file("penstock.lua", [[
local ps = require "penstock"
counter = 0
ps.listen { bind = "127.0.0.1:0", to = "a:1", policy = { require "guard", { close = function() prnt(counter) end } } }
]])
    local status, _, out = t:run { "check", path }
    assert.equal(0, status)
    assert.matches('warning: .*/guard.lua:2: unknown global "conect"\n', out)
    assert.matches('warning: .*/penstock.lua:3: unknown global "prnt", did you mean "print"?', out)
    assert.matches('warning: .*/penstock.lua:2: assigns the global "counter"; write local counter', out)
    assert.matches("ok: 1 listener, 3 warnings\n$", out)
  end)

  case("tells of a listener whose connections can go nowhere", function(t)
    local path = t:file("penstock.lua", [[
require "penstock".listen { name = "x", bind = "127.0.0.1:0", policy = { connected = function() end } }
]])
    local status, _, out = t:run { "check", path }
    assert.equal(0, status)
    assert.matches("warning: x has no destination", out)
    t:file("penstock.lua", 'require "penstock".listen { bind = "127.0.0.1:0", policy = { serve = function() end } }')
    status, _, out = t:run { "check", path }
    assert.equal(0, status)
    assert.matches("ok: 1 listener, 0 warnings", out)
  end)

  case("checks a policy without and with listeners", function(t)
    local path = t:file("guard.lua", "return { accept = function() end }\n")
    local status, _, out = t:run { "check", "-p", path }
    assert.equal(0, status)
    assert.matches("guard.lua: a policy\n    hooks     accept %(.*guard.lua:1%)\nok: 0 listeners, 0 warnings\n", out)
    status, _, out = t:run { "check", "-p", path, "8080", "db:5432" }
    assert.equal(0, status)
    assert.matches("^127.0.0.1:8080 %-> db:5432\n    hooks     accept", out)
  end)

  case("what does not load is status 1, with the line and why", function(t)
    local path = t:file("penstock.lua", "\nrequire 'penstock'.listen { bind = 5 }\n")
    local status, err, out = t:run { "check", path }
    assert.equal(1, status)
    assert.equal("", out)
    assert.matches("penstock: .*/penstock.lua:2: ps.listen: bind is a number", err)
  end)

  case("a wrong command line is status 2", function(t)
    local status, err = t:run { "check" }
    assert.equal(2, status)
    assert.matches("penstock check takes one file", err)
  end)

  case("an address in use is no matter: nothing is opened", function(t)
    local server = t:listen()
    local path = t:file("penstock.lua", ('require "penstock".listen { bind = %q, to = "a:1" }'):format(server.address))
    assert.equal(0, (t:run { "check", path }))
  end)
end)
