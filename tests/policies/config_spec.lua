-- Files that call ps.listen: their listeners, as they are written there.
local t = require "penstock.test"

describe("a configuration", function()
  local p, redis, app

  before_each(function()
    p = t.load "support/config.lua"
    redis, app = p:upstream "redis.internal:6379", p:upstream "app.internal:80"
  end)

  it("has its listeners, the first of which clients take unless they say", function()
    p:client():send "ping"
    assert.equal("ping", redis:received())
    p:client({ to = "shout" }):send "ping"
    assert.equal("PING", app:received())
    p:client({ to = "127.0.0.1:7000" }):send "address"
    assert.equal("ADDRESS", app:received())
    p:client({ to = "unix:/run/shout.sock" }):send "path"
    assert.equal("PATH", app:received())
  end)

  it("has limits and timeouts for each", function()
    p:client { to = "redis" }
    assert.equal("rst", p:client({ to = "redis" }):ended())
    p:client { to = "shout" }
    local c = p:client { to = "shout" }
    t.advance(5)
    assert.same({ "timeout", "idle" }, { c:closed() })
  end)

  it("says itself where it goes and what its limits are", function()
    local ok, why = pcall(t.load, "tests/policies/support/config.lua", { to = "127.0.0.1:1" })
    assert.is_false(ok)
    assert.matches("config.lua is a configuration, which says name, to, limits and timeouts", why, 1, true)
  end)

  it("has no listener of another name", function()
    local ok, why = pcall(p.client, p, { to = "postgres" })
    assert.is_false(ok)
    assert.matches("there is no listener of that name or address", why, 1, true)
  end)
end)

describe("a file that is neither", function()
  it("is told what it lacks", function()
    local path = os.tmpname()
    local file = assert(io.open(path, "w"))
    file:write "local nothing = 1\nreturn nothing and nil\n"
    file:close()
    local ok, why = pcall(t.load, path)
    os.remove(path)
    assert.is_false(ok)
    assert.matches("returned nothing, but a policy is a table of hooks", why, 1, true)
  end)
end)
