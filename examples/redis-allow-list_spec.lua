local t = require "penstock.test"

describe("redis-allow-list.lua", function()
  local p, server, redis

  before_each(function()
    p = t.load("redis-allow-list.lua", { to = "db.internal:5432" })
    server, redis = p:upstream "db.internal:5432", p:upstream "127.0.0.1:6379"
  end)

  it("asks for the address of the client", function()
    p:client { ip = "203.0.113.7" }
    assert.equal("*3\r\n$9\r\nSISMEMBER\r\n$7\r\nallowed\r\n$11\r\n203.0.113.7\r\n", redis:received())
    assert.same({}, server.connections)
  end)

  it("lets in who is in the set, and asks again after ten seconds", function()
    local c = p:client { ip = "203.0.113.7" }
    redis:send ":1\r\n"
    c:send "hello"
    assert.equal("hello", server:received())
    t.advance(9)
    p:client { ip = "203.0.113.7" }
    assert.same({ 2, 1 }, { #server.connections, #redis.connections })
    t.advance(1)
    p:client { ip = "203.0.113.7" }
    assert.equal(2, #redis.connections)
  end)

  it("turns away who is not, and remembers that, too", function()
    local c = p:client { ip = "203.0.113.8" }
    redis:send ":0\r\n"
    assert.same({ "denied", "not_listed" }, { c:closed() })
    assert.same({ "denied", "not_listed" }, { p:client({ ip = "203.0.113.8" }):closed() })
    assert.equal(1, #redis.connections)
  end)

  it("turns everybody away while Redis is silent, down, or says something else", function()
    local c = p:client { ip = "203.0.113.7" }
    t.advance(1)
    assert.same({ "denied", "no_answer" }, { c:closed() })
    c = p:client { ip = "203.0.113.7" }
    redis:send "-NOAUTH Authentication required.\r\n"
    assert.same({ "denied", "no_answer" }, { c:closed() })
    p:fail("127.0.0.1:6379", "refused")
    assert.same({ "denied", "no_answer" }, { p:client({ ip = "203.0.113.7" }):closed() })
    assert.same({}, server.connections)
  end)
end)
