local t = require "penstock.test"

describe("client-buckets.lua", function()
  local p, u

  before_each(function()
    p = t.load "client-buckets.lua"
    u = p:upstream "app.internal:80"
  end)

  -- How many of `n` connections from there are let through.
  local function let_through(n, ip)
    local before = #u.connections
    for _ = 1, n do p:client { ip = ip } end
    return #u.connections - before
  end

  it("lets a client connect 20 times at once, then 5 times a second", function()
    assert.equal(20, let_through(25, "203.0.113.7"))
    t.advance(1)
    assert.equal(5, let_through(10, "203.0.113.7"))
  end)

  it("names the reason to the one that is turned away", function()
    let_through(20, "203.0.113.7")
    assert.same({ "denied", "rate" }, { p:client({ ip = "203.0.113.7" }):closed() })
  end)

  it("counts every client on its own, and an IPv6 network of 64 bits as one", function()
    let_through(20, "203.0.113.7")
    assert.equal(1, let_through(1, "203.0.113.8"))
    assert.equal(20, let_through(20, "2001:db8::1"))
    assert.equal(0, let_through(1, "2001:db8::2"))
    assert.equal(1, let_through(1, "2001:db8:0:1::1"))
  end)

  it("sends a client's connections 1 MiB at once, then 256 KiB a second, together", function()
    local a, b = p:client(), p:client()
    for _, upstream in ipairs(u.connections) do upstream:send(("x"):rep(2 ^ 21)) end
    local function total() return #a:received() + #b:received() end
    t.advance(4)
    local first = total()
    assert.is_true(first >= 1.9 * 2 ^ 20 and first <= 2.1 * 2 ^ 20, first)
    t.advance(4)
    local second = total() - first
    assert.is_true(second >= 0.9 * 2 ^ 20 and second <= 1.1 * 2 ^ 20, second)
  end)

  it("does not hold back what the client sends", function()
    p:client():send(("x"):rep(2 ^ 22))
    assert.equal(2 ^ 22, #u:received())
  end)
end)
