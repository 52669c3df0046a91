local t = require "penstock.test"

describe("sniff.lua", function()
  local p

  before_each(function()
    p = t.load("sniff.lua", { to = "127.0.0.1:80", timeouts = { handshake = 5 } })
  end)

  local greetings = {
    ["127.0.0.1:22"] = "SSH-2.0-client\r\n",
    ["127.0.0.1:8443"] = "\22\3\1\0\5hello",
    ["127.0.0.1:80"] = "GET / HTTP/1.0\r\n\r\n",
  }
  for address, greeting in pairs(greetings) do
    it("forwards to " .. address .. " by the first bytes, which it keeps, one by one as well", function()
      local u, c = p:upstream(address), p:client()
      for byte in greeting:gmatch "." do c:send(byte) end
      assert.equal(greeting, u:received())
    end)
  end

  it("resets other protocols", function()
    local c = p:client():send "hello"
    assert.equal("rst", c:ended())
    assert.same({ "denied", "unknown_protocol" }, { c:closed() })
  end)

  it("turns away who says nothing for five seconds", function()
    local c = p:client()
    t.advance "4999ms"
    assert.is_nil(c:closed())
    t.advance "1ms"
    assert.same({ "denied", "timeout" }, { c:closed() })
  end)
end)
