-- What connections cost, and that all of it comes back.
local e2e = require "tests.e2e.support.case"
local case, case_in_modes, bulk, sys = e2e.case, e2e.case_in_modes, e2e.bulk, e2e.sys

local MB = 1024 * 1024

-- Waits until penstock has no more descriptors open than `want`, and as many as that.
local function expect_descriptors(p, want)
  if not sys.wait_until(function() return p:descriptors() == want end) then
    error(("%d descriptors are open, not %d"):format(p:descriptors(), want), 2)
  end
end

describe("memory:", function()
  case("2,000 idle connections fit, cost little, and give everything back", function(t)
    local server = t:listen()
    local p = t:penstock { "--access-log", "off", "127.0.0.1:0", server.address }
    local client, upstream = t:expect_echo(p, server)
    client:reset()
    upstream:expect_reset()
    upstream:close()
    local descriptors, before_kb = p:descriptors(), p:memory_kb()
    local pairs_of = {}
    for i = 1, 2000 do
      local c, u = t:pair(p, server)
      c:send "ping"
      u:expect "ping"
      pairs_of[i] = { c, u }
    end
    assert.equal(descriptors + 4000, p:descriptors())
    local each_kb = (p:memory_kb() - before_kb) / 2000
    local limit = p:sanitizer() and 20 or 2
    assert.is_true(each_kb < limit, ("%.1f kB for a connection"):format(each_kb))
    for i, pair in ipairs(pairs_of) do
      if i % 3 == 0 then pair[1]:reset() else pair[1]:close() end
      if i % 3 == 1 then pair[2]:reset() else pair[2]:close() end
    end
    expect_descriptors(p, descriptors)
  end)

  case_in_modes("descriptors of ended transfers come back; those of pipes are few and stay", function(t, mode)
    local server = t:listen()
    local p = t:penstock { "--mode", mode, "127.0.0.1:0", server.address }
    local function transfer()
      local client, upstream = t:pair(p, server)
      bulk.run {
        { from = client, to = upstream, bytes = 2 * MB, finish = true },
        { from = upstream, to = client, bytes = 2 * MB, finish = true },
      }
      client:close()
      upstream:close()
    end
    transfer()
    p:access(1)
    local after_one = p:descriptors()
    for _ = 2, 20 do transfer() end
    p:access(20)
    assert.is_true(p:descriptors() <= after_one + 4, ("%d, were %d"):format(p:descriptors(), after_one))
  end)

  case("connections that end while dialling, in a hook or half-closed give their descriptors back", function(t)
    local server, hole = t:listen(), t:blackhole()
    local policy = t:file("policy.lua", ([[
      local ps = require "penstock"
      return { connect = function(conn)
        if conn.seq %% 3 == 0 then return %q end
        if conn.seq %% 3 == 1 then ps.sleep(3600) end
      end }]]):format(hole.address))
    local p = t:penstock { "-p", policy, "--half-close-timeout", "200ms", "127.0.0.1:0", server.address }
    local before = p:descriptors()
    local clients = {}
    for i = 1, 60 do clients[i] = t:connect(p) end
    for _ = 1, 20 do t:accept(server):finish() end
    sys.wait_until(function() return p:descriptors() >= before + 80 end)
    for _, client in ipairs(clients) do client:reset() end
    expect_descriptors(p, before)
  end)
end)
