local t = require "penstock.test"

local function message(kind, body)
  return kind .. "\0\0\0" .. string.char(#body + 4) .. body
end

local START = message("", "\0\3\0\0user\0me\0\0")

describe("read-only-postgres.lua", function()
  local p, u, c

  local function start()
    p = t.load "read-only-postgres.lua"
    u, c = p:upstream "127.0.0.1:7001", p:client()
  end

  before_each(start)

  it("lets statements that read pass, wherever they are split", function()
    local query, parse = message("Q", "SELECT 1; show all\0"), message("P", "name\0select $1\0\0\0")
    local all = START .. query .. parse .. message("X", "")
    t.splits(all, function(parts)
      start()
      for _, part in ipairs(parts) do c:send(part) end
      assert.equal(all, u:received())
    end)
  end)

  it("refuses all others with an error of the server's kind, and ends", function()
    for _, bad in ipairs { message("Q", "DELETE FROM t\0"), message("Q", "select 1; drop table t\0"),
      message("P", "\0update t set a = 1\0\0\0"), message("Q", "/* x */ delete from t\0") } do
      start()
      c:send(START .. bad)
      assert.equal(START, u:received())
      assert.matches("^E%z%z%z.SFATAL%zVFATAL%zC25006%zMonly reading is allowed here%z%z$", c:received())
      assert.truthy(c:ended())
    end
  end)

  it("offers no encryption, which would hide the statements", function()
    c:send(message("", "\4\210\22\47"))
    assert.equal("N", c:received())
    c:send(START)
    assert.equal(START, u:received())
  end)

  it("resets who does not speak PostgreSQL", function()
    c:send "GET / HTTP/1.1\r\n\r\n"
    assert.equal("rst", c:ended())
    assert.equal("", u:received())
  end)
end)
