-- PROXY headers on the virtual network: clients from listed addresses send the bytes of one first.
local t = require "penstock.test"

local V1 = "PROXY TCP4 203.0.113.7 10.0.0.1 50000 443\r\n"
local V2 = "\r\n\r\n\0\r\nQUIT\n\33\17\0\16\203\0\113\7\10\0\0\1\195\80\1\187\224\0\1x"

describe("behind a proxy", function()
  local p, u

  before_each(function()
    p = t.load "support/accept_proxy.lua"
    u = p:upstream "127.0.0.1:7001"
  end)

  it("the client is who the header tells, wherever it is split", function()
    for _, header in ipairs { V1, V2 } do
      t.splits(header .. "hello", function(parts)
        local q = t.load "support/accept_proxy.lua"
        local up, c = q:upstream "127.0.0.1:7001", q:client { ip = "192.0.2.1" }
        for _, part in ipairs(parts) do c:send(part) end
        assert.equal("hello", up:received())
        c:finish()
        assert.equal("fin", up:ended())
      end)
    end
  end)

  it("an address that the policy denies is denied, the proxy's own is not", function()
    local c = p:client { ip = "192.0.2.1" }
    c:send "PROXY TCP4 10.1.2.3 10.0.0.1 1 2\r\n"
    assert.same({ "denied", "internal" }, { c:closed() })
    p:client({ ip = "192.0.2.1" }):send "PROXY UNKNOWN\r\nhello"
    assert.equal("hello", u:received())
  end)

  it("clients are counted by what the header tells", function()
    for i = 1, 3 do p:client({ ip = "192.0.2.1" }):send(("PROXY TCP4 203.0.113.%d 10.0.0.1 1 2\r\n"):format(i)) end
    local c = p:client { ip = "192.0.2.2" }
    c:send "PROXY TCP4 203.0.113.3 10.0.0.1 1 2\r\n"
    assert.same({ "limit", "per_ip" }, { c:closed() })
  end)

  it("a header that does not come in time ends the connection, however it drips in", function()
    local c = p:client { ip = "192.0.2.1" }
    for i = 1, 3 do
      c:send(V1:sub(i, i))
      assert.is_nil((c:closed()))
      t.advance(1)
    end
    assert.same({ "timeout", "proxy_header" }, { c:closed() })
  end)

  it("a wrong header ends it before anything is dialled", function()
    local c = p:client { ip = "192.0.2.1" }
    c:send "GET / HTTP/1.1\r\n\r\n"
    assert.equal("rst", c:ended())
    assert.same({ "proxy", "missing" }, { c:closed() })
    assert.is_nil(table.concat(t.trace(), "\n"):match "penstock dials")
  end)

  it("who is not listed comes as ever, and is denied where the listener says so", function()
    p:client({ ip = "198.51.100.1" }):send(V1)
    assert.equal(V1, u:received())
    assert.same({ "proxy", "not_listed" }, { p:client({ to = "strict", ip = "192.0.2.1" }):closed() })
  end)

  local function client(to, address, ip)
    local c = p:client { to = to, ip = ip or "192.0.2.1" }
    if not c:closed() then c:send(address and ("PROXY TCP4 %s 10.0.0.1 1 2\r\nhello"):format(address) or "hello") end
    return c
  end

  it("ready policies that turn away by address wait for the header, and judge others at once", function()
    assert.same({ "denied", "not_allowed" }, { client("allow", "192.0.2.1"):closed() })
    assert.is_nil((client("allow", "203.0.113.7"):closed()))
    assert.same({ "denied", "not_allowed" }, { client("allow", nil, "198.51.100.1"):closed() })
    assert.is_nil((client("allow", nil, "203.0.113.1"):closed()))
    assert.is_nil((client("deny", "203.0.113.8"):closed()))
    assert.same({ "denied", "denied_address" }, { client("deny", "203.0.113.7"):closed() })
    assert.is_nil((client("rate", "203.0.113.7"):closed()))
    assert.is_nil((client("rate", "203.0.113.8"):closed()))
    assert.same({ "denied", "concurrent" }, { client("rate", "203.0.113.8"):closed() })
    assert.is_nil((client("tarpit", "203.0.113.8"):closed()))
    local held = client("tarpit", "203.0.113.7")
    t.advance(6)
    assert.same({ "denied", "tarpit" }, { held:closed() })
  end)

  it("options go on to the upstream as they came", function()
    p:client({ to = "strict", ip = "198.51.100.9" }):send(V2 .. "hello")
    assert.equal(V2 .. "hello", u:received())
  end)
end)
