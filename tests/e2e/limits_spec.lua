-- Limits and deadlines: what is over them waits or ends, with a reason; what is within them is left alone.
local e2e = require "tests.e2e.support.case"
local case, case_in_modes, bulk, sys = e2e.case, e2e.case_in_modes, e2e.bulk, e2e.sys

local KB, MB = 1024, 1024 * 1024

-- Long enough for penstock to do what it must not do; a slow machine makes these tests weaker, never wrong.
local A_WHILE = 0.3

describe("connection limits:", function()
  local function expect_waiting(t, option, what)
    local server = t:listen()
    local p = t:penstock { option, "2", "127.0.0.1:0", server.address }
    local first, first_upstream = t:expect_echo(p, server)
    t:expect_echo(p, server)
    local third, fourth = t:connect(p), t:connect(p)
    third:send "I wait"
    fourth:send "so do I"
    p:log(what .. " 2 reached: (further)")
    assert.is_nil(server:try_accept(A_WHILE))
    first:close()
    first_upstream:close()
    local upstream = t:accept(server)
    local heard = upstream:receive()
    assert.is_true(heard == "I wait" or heard == "so do I")
    assert.is_nil(server:try_accept(A_WHILE))
    upstream:close()
    third:close()
    fourth:close()
    t:accept(server)
    local _, times = p.err:gsub(what .. " 2 reached", "")
    assert.is_true(times <= 4, "the log was flooded: " .. p.err)
  end

  case("--max-conns: more clients wait in the backlog and are served when one leaves", function(t)
    expect_waiting(t, "--max-conns", "max%-conns")
  end)

  case("--max-conns-listener: more clients wait in the backlog and are served when one leaves", function(t)
    expect_waiting(t, "--max-conns-listener", "max%-conns%-listener")
  end)

  case("--max-conns-listener of one listener does not hold up another", function(t)
    local a, b = t:listen(), t:listen()
    local p = t:penstock { "--max-conns-listener", "1", "127.0.0.1:0", a.address, "127.0.0.1:0", b.address }
    t:expect_echo(p, a)
    t:connect(p)
    p:log "max%-conns%-listener 1 (reached)"
    local client = t:connect(p.addresses[2])
    local upstream = t:accept(b)
    client:send "free"
    upstream:expect "free"
  end)

  case("--max-per-ip: a client too many of one address is reset and counted; others are served", function(t)
    local server = t:listen()
    local p = t:penstock { "--max-per-ip", "2", "127.0.0.1:0", server.address }
    local first, first_upstream = t:expect_echo(p, server)
    t:expect_echo(p, server)
    for _ = 1, 3 do t:connect(p):expect_reset() end
    p:log "max%-per%-ip 2 reached by 127%.0%.0%.1 %((1) refused so far%)"
    t:pair(p, server, { from = "127.0.0.2:0" })
    first:close()
    first_upstream:close()
    p:access(1)
    t:expect_echo(p, server)
    for _, thing in ipairs(t.things) do thing:close() end
    p:stop()
    assert.matches("limits reached 3 times", p.err)
  end)

  case("--max-rate: no more clients a second than allowed, and all are served in the end", function(t)
    local server = t:listen()
    local p = t:penstock { "--max-rate", "10", "127.0.0.1:0", server.address }
    local start = sys.now()
    for _ = 1, 22 do t:connect(p) end
    for n = 1, 22 do
      t:accept(server)
      local allowed = 10 + 10 * (sys.now() - start) + 1
      assert.is_true(n <= allowed, ("%d clients where %.1f are allowed"):format(n, allowed))
    end
  end)
end)

describe("bandwidth limits:", function()
  local RATE, BYTES = 2 * MB, 2 * MB

  -- Receives a transfer while its sum stays below what the rate allows since `start`.
  local function watch(sock, start)
    local receive_now = sock.receive_now
    sock.receive_now = function(self, max)
      local memory, n = receive_now(self, max)
      local allowed = RATE * (sys.now() - start) + RATE / 10
      if memory and self.got > allowed * 1.02 then
        error(("%d bytes where the rate allows %d"):format(self.got, allowed), 0)
      end
      return memory, n
    end
  end

  case_in_modes("--rate-up and --rate-down hold, and every byte arrives", function(t, mode)
    local server = t:listen()
    local p = t:penstock { "--mode", mode, "--rate-up", "2M", "--rate-down", "2M", "127.0.0.1:0", server.address }
    local start = sys.now()
    local client, upstream = t:pair(p, server)
    watch(client, start)
    watch(upstream, start)
    bulk.run {
      { from = client, to = upstream, bytes = BYTES, finish = true },
      { from = upstream, to = client, bytes = BYTES, finish = true },
    }
    p:expect_end { reason = "eof", up = BYTES, down = BYTES }
  end)

  case_in_modes("--rate-down leaves the other direction alone", function(t, mode)
    local server = t:listen()
    local p = t:penstock { "--mode", mode, "--rate-down", "1", "127.0.0.1:0", server.address }
    local client, upstream = t:pair(p, server)
    upstream:send "this would take seventeen seconds"
    bulk.run { { from = client, to = upstream, bytes = 10 * MB } }
    client:receive()
    assert.is_true(client.got < 33)
  end)

  case("a limit below one byte per wake-up does not spin", function(t)
    local server = t:listen()
    local p = t:penstock { "--rate-up", "10", "127.0.0.1:0", server.address }
    local client, upstream = t:pair(p, server)
    client:send(("x"):rep(1000))
    upstream:expect "x"
    local before = p:cpu()
    sys.pass(0.5)
    assert.is_true(p:cpu() - before < 0.25, "it used " .. p:cpu() - before .. " s of CPU in half a second")
  end)
end)

describe("deadlines:", function()
  local function start(t, options)
    local server = t:listen()
    options[#options + 1] = "127.0.0.1:0"
    options[#options + 1] = server.address
    local p = t:penstock(options)
    local client, upstream = t:pair(p, server)
    return p, client, upstream
  end

  -- Calls `step` every `pause` seconds for `seconds`. False when this machine was so busy that a deadline of `timeout`
  -- seconds between two steps may have passed rightly: then nothing can be said.
  local function keep_up(seconds, pause, timeout, step)
    local begin, last, judged = sys.now(), sys.now(), true
    while sys.now() - begin < seconds do
      local ok, why = pcall(step)
      if sys.now() - last > timeout * 0.8 then judged = false end
      if not ok and judged then error(why, 0) end
      if not ok then return false end
      last = sys.now()
      sys.pass(pause)
    end
    return judged
  end

  case_in_modes("idle: a connection on which nothing moves ends by reset on both sides", function(t, mode)
    local p, client, upstream = start(t, { "--mode", mode, "--idle-timeout", "300ms" })
    client:send "hello"
    upstream:expect "hello"
    client:expect_reset()
    upstream:expect_reset()
    p:expect_end { reason = "timeout", detail = "idle", up = 5 }
  end)

  case("idle: traffic in one direction only is not idle", function(t)
    local p, client, upstream = start(t, { "--idle-timeout", "1s" })
    local alive = keep_up(2.5, 0.1, 1, function()
      upstream:send "."
      client:expect "."
    end)
    if alive then assert.same({}, p:access_lines()) end
  end)

  case_in_modes("idle: a slow reader that drains the kernel's buffers is not idle", function(t, mode)
    local server = t:listen()
    local p = t:penstock { "--mode", mode, "--idle-timeout", "1s", "127.0.0.1:0", server.address }
    local client, upstream = t:pair(p, server, { rcvbuf = 16 * KB })
    upstream:send(bulk.text(0, 2 * MB))
    upstream:wait_delivered()
    local at = 0
    keep_up(2.5, 0.05, 1, function()
      client:expect(bulk.text(at, 20 * KB))
      at = at + 20 * KB
    end)
  end)

  case("first byte: a client that says nothing is ended, one that has spoken is kept", function(t)
    local p, client, upstream = start(t, { "--first-byte-timeout", "500ms" })
    upstream:send "hello, client"
    client:expect "hello, client"
    local speaker = t:connect(p)
    speaker:send "hello, server"
    client:expect_reset()
    upstream:expect_reset()
    local line = p:access()
    if line.up == 0 then p:expect_end { reason = "timeout", detail = "first_byte", down = 13 } end
    sys.pass(0.6)
    speaker:send "still here"
    assert.equal(1, #p:access_lines())
  end)

  case("half-closed: one byte now and then does not extend it", function(t)
    local p, client, upstream = start(t, { "--half-close-timeout", "500ms" })
    client:finish()
    upstream:expect_eof()
    sys.wait_until(function()
      upstream:send_from(".", 1)
      return p:access_lines()[1]
    end)
    p:expect_end { reason = "timeout", detail = "half_closed" }
  end)

  case_in_modes("half-closed: a real transfer is not cut", function(t, mode)
    local _, client, upstream = start(t, { "--mode", mode, "--half-close-timeout", "1s" })
    client:finish()
    upstream:expect_eof()
    local text = bulk.text(0, 64 * KB)
    keep_up(2.2, 0.1, 1, function()
      upstream:send(text)
      client:expect(text)
    end)
  end)

  case("life: a busy connection ends, too", function(t)
    local p, client = start(t, { "--life-timeout", "500ms" })
    sys.wait_until(function()
      client:send_from(".", 1)
      return p:access_lines()[1]
    end)
    local line = p:expect_end { reason = "timeout", detail = "life" }
    assert.is_true(line.duration_ms >= 499)
  end)

  case("0 switches a deadline off", function(t)
    local p, client, upstream = start(t, {
      "--idle-timeout", "0", "--half-close-timeout", "0", "--connect-timeout", "0",
    })
    client:finish()
    upstream:expect_eof()
    sys.pass(A_WHILE)
    upstream:send("late"):finish()
    client:expect "late"
    p:expect_end { reason = "eof" }
  end)
end)

describe("out of descriptors:", function()
  -- A paused listener looks at its backlog again ten times a second: a spin would use all of half a second.
  local function expect_rest(p)
    local before = p:cpu()
    sys.pass(0.5)
    assert.is_true(p:cpu() - before < 0.25, "it used " .. p:cpu() - before .. " s of CPU in half a second")
  end

  case("clients beyond what ulimit -n has room for wait, without a spin or a flood, and are served later", function(t)
    local server = t:listen()
    local p = t:penstock({ "127.0.0.1:0", server.address }, { descriptors = 120 })
    local room = tonumber(p.err:match "room for (%d+) connections")
    assert.is_true(room > 0 and room < 60)
    local upstreams = {}
    for _ = 1, room + 20 do t:connect(p):send "here" end
    for i = 1, room do upstreams[i] = t:accept(server) end
    p:log "max%-conns %d+ (reached)"
    expect_rest(p)
    assert.is_nil(server:try_accept(0))
    local _, lines = p.err:gsub("reached", "")
    assert.equal(1, lines)
    for i = 1, room do upstreams[i]:reset() end
    for _ = 1, 20 do t:accept(server):expect("here"):reset() end
  end)

  case("accept() that finds no descriptor pauses, is logged once, and goes on when there is room", function(t)
    t:expect_error "cannot accept"
    local server = t:listen()
    local p = t:penstock { "127.0.0.1:0", server.address }
    local first, first_upstream = t:expect_echo(p, server)
    p:limit_descriptors(0)
    local waiting = t:connect(p):send "here"
    p:log "cannot accept: (%S+)"
    expect_rest(p)
    local _, lines = p.err:gsub("cannot accept", "")
    assert.equal(1, lines)
    first:close()
    first_upstream:close()
    t:accept(server):expect "here"
    waiting:close()
  end)

  case("a dial that finds no descriptor costs this connection only", function(t)
    local server = t:listen()
    local p = t:penstock { "127.0.0.1:0", server.address }
    local client, upstream = t:expect_echo(p, server)
    p:limit_descriptors(1)
    t:connect(p):expect_reset()
    p:expect_end { reason = "system" }
    client:send "still"
    upstream:expect "still"
    p:limit_descriptors(1000)
    t:expect_echo(p, server)
  end)
end)
