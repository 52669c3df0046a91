local t = require "penstock.test"

describe("round-robin.lua", function()
  local p, servers

  before_each(function()
    p = t.load "round-robin.lua"
    servers = {}
    for i = 1, 3 do servers[i] = p:upstream(("10.0.0.%d:5432"):format(i + 4)) end
  end)

  -- How many connections each server has got.
  local function counts()
    local n = {}
    for i, server in ipairs(servers) do n[i] = #server.connections end
    return n
  end

  it("takes the servers in turn", function()
    for _ = 1, 6 do p:client() end
    assert.same({ 2, 2, 2 }, counts())
  end)

  it("goes on to the next when one is down, and leaves it out for ten seconds", function()
    p:fail("10.0.0.5:5432", "refused")
    local c = p:client():send "hello"
    assert.equal("hello", servers[2]:received())
    c:reset()
    p:client()
    p:client()
    p:client()
    assert.equal(0, counts()[1])
    assert.equal(1, #p:log() / 2) -- penstock's line and the policy's, once
  end)

  it("tries the server again after that", function()
    p:fail("10.0.0.5:5432", "refused", 1)
    p:client()
    t.advance(10)
    for _ = 1, 3 do p:client() end
    assert.equal(1, counts()[1])
  end)

  it("turns a client away when all are down", function()
    for i = 5, 7 do p:fail(("10.0.0.%d:5432"):format(i), "unreachable") end
    local c = p:client()
    assert.same({ "denied", "all_down" }, { c:closed() })
    assert.equal("rst", c:ended())
  end)
end)
