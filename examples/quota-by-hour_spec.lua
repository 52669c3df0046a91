local t = require "penstock.test"

-- The 4th of May 2026 is a Monday.
local function at(day, hour) return os.time { year = 2026, month = 5, day = day, hour = hour } end

describe("quota-by-hour.lua", function()
  local function accepted(time)
    local p = t.load("quota-by-hour.lua", { time = time })
    local u, clients = p:upstream "127.0.0.1:7001", {}
    for i = 1, 25 do clients[i] = p:client { ip = "203.0.113.7" } end
    return #u.connections, clients, p, u
  end

  it("allows five during working hours, and twenty at night and on Sundays", function()
    assert.equal(5, (accepted(at(4, 8))))
    assert.equal(5, (accepted(at(8, 17))))
    assert.equal(20, (accepted(at(4, 18))))
    assert.equal(20, (accepted(at(4, 7))))
    assert.equal(20, (accepted(at(3, 12))))
  end)

  it("says so in the access line, and lets the next in when one has gone", function()
    local n, clients, p, u = accepted(at(4, 12))
    assert.same({ "denied", "quota" }, { clients[n + 1]:closed() })
    clients[1]:reset()
    p:client { ip = "203.0.113.7" }
    assert.equal(n + 1, #u.connections)
  end)

  it("counts each client by itself", function()
    local n, _, p, u = accepted(at(4, 12))
    p:client { ip = "203.0.113.8" }
    assert.equal(n + 1, #u.connections)
  end)
end)
