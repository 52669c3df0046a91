local t = require "penstock.test"

describe("header-rewrite.lua", function()
  local function start()
    local p = t.load "header-rewrite.lua"
    return p:upstream "127.0.0.1:7001", p:client { ip = "203.0.113.7" }
  end

  it("rewrites Host and adds the client's address, wherever the input is split", function()
    t.splits("GET / HTTP/1.0\r\nHost: a\r\n\r\nbody", function(parts)
      local u, c = start()
      for _, part in ipairs(parts) do c:send(part) end
      c:finish()
      assert.equal("GET / HTTP/1.0\r\nHost: backend\r\nX-Client: 203.0.113.7\r\n\r\nbody", u:received())
      assert.equal("fin", u:ended())
    end)
  end)

  it("keeps the line ends that the client uses", function()
    local u, c = start()
    c:send "GET / HTTP/1.0\nhOsT:a\n\n"
    assert.equal("GET / HTTP/1.0\nHost: backend\nX-Client: 203.0.113.7\n\n", u:received())
  end)

  it("leaves the body alone, and what the server answers", function()
    local u, c = start()
    c:send "POST / HTTP/1.0\r\n\r\nHost: a\r\n\r\n"
    assert.equal("POST / HTTP/1.0\r\nX-Client: 203.0.113.7\r\n\r\nHost: a\r\n\r\n", u:received())
    u:send "Host: b\r\n\r\n"
    assert.equal("Host: b\r\n\r\n", c:received())
  end)

  it("forwards a last line without an end as it is", function()
    local u, c = start()
    c:send("GET / HTTP/1.0\r\nAccept: x"):finish()
    assert.equal("GET / HTTP/1.0\r\nAccept: x", u:received())
    assert.equal("fin", u:ended())
  end)

  it("forwards a line over 8192 bytes and all after it untouched", function()
    local u, c = start()
    local rest = ("x"):rep(9000) .. "\r\nHost: a\r\n\r\n"
    c:send("GET / HTTP/1.0\r\n" .. rest)
    assert.equal("GET / HTTP/1.0\r\n" .. rest, u:received())
  end)
end)
