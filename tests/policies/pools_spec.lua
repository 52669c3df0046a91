-- Pools without a network: virtual time for checks and ejection, spoken proxies.
local t = require "penstock.test"

local GREETING = "\5\2\0\2"
local CONNECT = "CONNECT mail.example:25 HTTP/1.1\r\nHost: mail.example:25\r\n\r\n"

-- What all its clients have said; checks say nothing.
local function heard(upstream)
  local parts = {}
  for i, c in ipairs(upstream.connections) do parts[i] = c:received() end
  return table.concat(parts)
end

describe("a pool", function()
  it("takes turns", function()
    local p = t.load "support/pools.lua"
    local one, two = p:upstream "10.0.0.1:80", p:upstream "10.0.0.2:80"
    p:client({}):send "a"
    p:client({}):send "b"
    assert.same({ "a", "b" }, { heard(one), heard(two) })
  end)

  it("fails over to the next", function()
    local p = t.load "support/pools.lua"
    local two = p:upstream "10.0.0.2:80"
    p:fail("10.0.0.1:80", "refused")
    p:client({}):send "a"
    assert.equal("a", heard(two))
  end)

  it("comes back after its ejection", function()
    local p = t.load "support/pools.lua"
    local one, two = p:upstream "10.0.0.1:80", p:upstream "10.0.0.2:80"
    p:fail("10.0.0.1:80", "refused", 1)
    for _ = 1, 3 do p:client({}):send "a" end
    assert.same({ "", "aaa" }, { heard(one), heard(two) })
    t.advance(61)
    for _ = 1, 2 do p:client({}):send "b" end
    assert.same({ "b", "aaab" }, { heard(one), heard(two) })
  end)

  it("leaves out who fails its checks, until one succeeds", function()
    local p = t.load "support/pools.lua"
    local one, two = p:upstream "10.0.0.1:80", p:upstream "10.0.0.2:80"
    p:fail("10.0.0.2:80", "refused", 3)
    t.advance(11)
    for _ = 1, 3 do p:client({}):send "a" end
    assert.same({ "aaa", "" }, { heard(one), heard(two) })
    t.advance(20)
    for _ = 1, 2 do p:client({}):send "b" end
    assert.same({ "aaab", "b" }, { heard(one), heard(two) })
  end)

  it("keeps a client with one proxy, which is spoken to as it was written", function()
    local p = t.load "support/pools.lua"
    local socks, http = p:upstream "10.0.1.1:1080", p:upstream "10.0.1.2:3128"
    local clients = {}
    for i = 1, 3 do clients[i] = p:client { port = 1 } end
    assert.is_true(heard(socks) == GREETING:rep(3) or heard(http) == CONNECT:rep(3))
    for i = 1, 3 do clients[i]:finish() end
  end)
end)
