-- Several workers: every client is served by one of them, limits and numbers are those of the whole process.
local e2e = require "tests.e2e.support.case"
local case, case_in_modes, bulk, sys = e2e.case, e2e.case_in_modes, e2e.bulk, e2e.sys

local MB = 1024 * 1024

local function end_well(client, upstream)
  client:finish()
  upstream:expect_eof()
  upstream:finish()
  client:expect_eof()
  client:close()
  upstream:close()
end

describe("workers:", function()
  case("800 connections at once over 4 workers carry their own bytes, and the totals are right", function(t)
    local server = t:listen()
    local p = t:penstock { "--workers", "4", "127.0.0.1:0", server.address }
    local clients, by_name = {}, {}
    for i = 1, 800 do clients[i] = t:connect(p):send(("%04d"):format(i)) end
    for _ = 1, 800 do
      local upstream = t:accept(server)
      local name = upstream:read(4)
      assert.is_nil(by_name[name])
      by_name[name] = upstream
      upstream:send(name:reverse())
    end
    for i = 1, 800 do
      local name = ("%04d"):format(i)
      clients[i]:expect(name:reverse())
      end_well(clients[i], by_name[name])
    end
    p:stop()
    assert.matches("stopped: 800 connections served, limits reached 0 times", p.err)
    local ids = {}
    for _, line in ipairs(p:access_lines()) do
      assert.same({ 4, 4, "eof" }, { line.up, line.down, line.reason })
      ids[line.id] = true
    end
    assert.equal(800, #ids)
  end)

  case("conn.seq counts over all workers without gaps", function(t)
    local server = t:listen()
    local policy = t:file("seq.lua", 'return { accept = function(conn) conn:tag("seq", conn.seq) end }')
    local p = t:penstock { "--workers", "4", "-p", policy, "127.0.0.1:0", server.address }
    for _ = 1, 60 do end_well(t:pair(p, server)) end
    p:stop()
    local seen = {}
    for _, line in ipairs(p:access_lines()) do seen[tonumber(line.seq)] = true end
    assert.equal(60, #seen)
  end)

  case_in_modes("transfers on all workers at once arrive byte for byte", function(t, mode)
    local server = t:listen()
    local p = t:penstock { "--workers", "4", "--mode", mode, "127.0.0.1:0", server.address }
    local transfers = {}
    for i = 1, 12 do
      local client, upstream = t:pair(p, server)
      transfers[#transfers + 1] = { from = client, to = upstream, bytes = 1 * MB, offset = i * 10007, finish = true }
      transfers[#transfers + 1] = { from = upstream, to = client, bytes = 1 * MB, offset = i * 77773, finish = true }
    end
    bulk.run(transfers)
  end)

  case("--max-conns holds over all workers", function(t)
    local server = t:listen()
    local p = t:penstock { "--workers", "4", "--max-conns", "10", "127.0.0.1:0", server.address }
    for _ = 1, 40 do t:connect(p) end
    local upstreams = {}
    for i = 1, 10 do upstreams[i] = t:accept(server) end
    assert.is_nil(server:try_accept(0.3))
    for i = 1, 10 do upstreams[i]:reset() end
    for _ = 1, 30 do t:accept(server):reset() end -- each end makes room, also in another worker
  end)

  case("--max-per-ip holds over all workers", function(t)
    local server = t:listen()
    local p = t:penstock { "--workers", "4", "--max-per-ip", "5", "127.0.0.1:0", server.address }
    local clients = {}
    for i = 1, 30 do clients[i] = t:connect(p):offer "x" end
    for _ = 1, 5 do t:accept(server) end
    assert.is_nil(server:try_accept(0.2))
    local refused = 0
    sys.wait_until(function()
      refused = 0
      for _, client in ipairs(clients) do
        local _, how = client:receive_now()
        if how == "ECONNRESET" then client.aborted = how end
        if client.aborted then refused = refused + 1 end
      end
      return refused >= 25
    end)
    assert.equal(25, refused)
  end)

  case("a UNIX listener is served by all workers", function(t)
    local server = t:listen()
    local p = t:penstock { "--workers", "4", "unix:" .. t:folder() .. "/socket", server.address }
    for _ = 1, 50 do t:expect_echo(p, server) end
  end)

  case("TERM under load ends cleanly, and every client that was accepted is served", function(t)
    local server = t:listen()
    local p = t:penstock { "--workers", "4", "127.0.0.1:0", server.address }
    local clients, served = {}, 0
    for i = 1, 200 do clients[i] = t:connect(p):send "hello" end
    p:signal "TERM"
    -- What the kernel gave to penstock is served; a client in no one's backlog any more is reset by the kernel.
    while served < 200 do
      local upstream = server:try_accept(2)
      if not upstream then break end
      upstream:expect("hello"):send("bye"):finish()
      upstream:close()
      served = served + 1
    end
    local answered = 0
    for _, client in ipairs(clients) do
      local text, how = client:read_all()
      if text == "bye" and how == "eof" then answered = answered + 1 end
      client:close()
    end
    assert.equal(served, answered)
    p:expect_exit(0)
    assert.equal(served, tonumber(p.err:match "stopped: (%d+) connections? served"))
  end)

  case("a policy that fails in one worker costs nothing in the others", function(t)
    t:expect_error "script error"
    local server = t:listen()
    local policy = t:file("odd.lua", "return { data = function(c) if c.seq % 2 == 1 then error 'odd' end end }")
    local p = t:penstock { "--workers", "4", "-p", policy, "127.0.0.1:0", server.address }
    for i = 1, 40 do
      local client, upstream = t:pair(p, server)
      client:send "x"
      if i % 2 == 1 then
        client:expect_reset()
      else
        upstream:expect "x"
      end
    end
  end)

  case("a timer that is to run once per host runs in one worker, and in that one again and again", function(t)
    local server = t:listen()
    local policy = t:file("timer.lua", [[
      local ps = require "penstock"
      local runs, me = ps.store "runs", tostring({}) .. ps.random()
      ps.every("10ms", function()
        if not runs:add("who", me) and runs:get "who" ~= me then ps.log.error "two workers run it" end
        if runs:incr("n", 1, 0) == 5 then ps.log.info "five runs" end
      end, { once_per = "host" })
      return {}
    ]])
    local p = t:penstock { "--workers", "3", "-p", policy, "127.0.0.1:0", server.address }
    p:log "(five runs)"
  end)
end)
