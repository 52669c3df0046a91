local t = require "penstock.test"

local function message(kind, body)
  local n = #body + 4
  return kind .. string.char(0, 0, math.floor(n / 256), n % 256) .. body
end

describe("flaky-db.lua", function()
  local function start(options)
    local p = t.load("flaky-db.lua", options)
    return p, p:upstream "127.0.0.1:5432"
  end

  it("makes every tenth connection wait three seconds", function()
    local p, u = start()
    for _ = 1, 20 do p:client() end
    assert.equal(18, #u.connections)
    t.advance "2999ms"
    assert.equal(18, #u.connections)
    t.advance "1ms"
    assert.equal(20, #u.connections)
  end)

  it("resets about one connection in twenty, two seconds after it is connected", function()
    local p = start { seed = 1 }
    local clients = {}
    for i = 1, 400 do clients[i] = p:client() end
    local function ended()
      local n = 0
      for _, c in ipairs(clients) do if c:ended() == "rst" then n = n + 1 end end
      return n
    end
    t.advance "1999ms"
    assert.equal(0, ended())
    t.advance(10)
    assert.is_true(ended() >= 8 and ended() <= 40, ended())
  end)

  it("holds an error back for a second, and nothing before it", function()
    local p, u = start { seed = 1 }
    local c = p:client()
    local row, bad, ready = message("D", "row"), message("E", "SERROR"), message("Z", "I")
    u:send(row .. bad .. ready)
    assert.equal(row, c:received())
    t.advance "999ms"
    assert.equal(row, c:received())
    t.advance "1ms"
    assert.equal(row .. bad .. ready, c:received())
  end)

  it("passes messages on as they are, wherever they are split", function()
    local bytes = message("R", "\0\0\0\0") .. message("Z", "I")
    t.splits(bytes, function(parts)
      local p, u = start()
      local c = p:client()
      for _, part in ipairs(parts) do u:send(part) end
      assert.equal(bytes, c:received())
    end)
  end)

  it("forwards what is no message untouched", function()
    local p, u = start()
    local c = p:client()
    u:send "N\255\255\255\255 nonsense"
    assert.equal("N\255\255\255\255 nonsense", c:received())
  end)

  it("passes on at once what the client sends", function()
    local p, u = start()
    p:client():send(message("E", "execute"))
    assert.equal(message("E", "execute"), u:received())
  end)
end)
