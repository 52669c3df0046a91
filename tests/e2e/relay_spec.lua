-- Every byte once and in order, whatever the chunks, the addresses and the speed of both sides.
local e2e = require "tests.e2e.support.case"
local case, case_in_modes, bulk = e2e.case, e2e.case_in_modes, e2e.bulk

local KB, MB = 1024, 1024 * 1024

describe("relay:", function()
  case_in_modes("30 MB each way at once arrive byte for byte", function(t, mode)
    local server = t:listen()
    local p = t:penstock { "--mode", mode, "127.0.0.1:0", server.address }
    local client, upstream = t:pair(p, server)
    bulk.run {
      { from = client, to = upstream, bytes = 30 * MB, finish = true },
      { from = upstream, to = client, bytes = 30 * MB, finish = true },
    }
    p:expect_end { reason = "eof", up = 30 * MB, down = 30 * MB }
  end)

  case_in_modes("random chunks both ways arrive byte for byte", function(t, mode)
    local server = t:listen()
    local p = t:penstock { "--mode", mode, "127.0.0.1:0", server.address }
    for seed = 1, 3 do
      local client, upstream = t:pair(p, server)
      local random = bulk.random(seed)
      -- Mostly small, sometimes as large as a buffer of penstock, and one more.
      local sizes = { 1, 7, 100, 1460, 4096, 16 * KB, 64 * KB - 1, 64 * KB, 64 * KB + 1, 200 * KB }
      local function size() return random(sizes[random(#sizes)]) end
      bulk.run {
        { from = client, to = upstream, bytes = 4 * MB + seed, chunk = size, read = size, finish = true },
        { from = upstream, to = client, bytes = 4 * MB - seed, chunk = size, read = size, finish = true },
      }
      p:expect_end({ reason = "eof", up = 4 * MB + seed, down = 4 * MB - seed }, seed)
    end
  end)

  case_in_modes("one byte at a time arrives byte for byte", function(t, mode)
    local server = t:listen()
    local p = t:penstock { "--mode", mode, "127.0.0.1:0", server.address }
    local client, upstream = t:pair(p, server)
    for i = 1, 200 do
      local byte = string.char(i)
      client:send(byte)
      upstream:expect(byte)
      upstream:send(byte)
      client:expect(byte)
    end
    local function one() return 1 end
    bulk.run {
      { from = client, to = upstream, bytes = 3000, chunk = one, finish = true },
      { from = upstream, to = client, bytes = 3000, chunk = one, finish = true },
    }
  end)

  case_in_modes("bulk, then small messages, then bulk again go on in order", function(t, mode)
    local server = t:listen()
    local p = t:penstock { "--mode", mode, "127.0.0.1:0", server.address }
    local client, upstream = t:pair(p, server)
    for round = 1, 3 do
      bulk.run { { from = client, to = upstream, bytes = 6 * MB, offset = round * 1000003 } }
      for i = 1, 50 do
        local text = ("message %d of round %d\n"):format(i, round)
        client:send(text)
        upstream:expect(text)
        upstream:send(text)
        client:expect(text)
      end
    end
  end)

  case_in_modes("a server that speaks first is heard by a silent client", function(t, mode)
    local server = t:listen()
    local p = t:penstock { "--mode", mode, "127.0.0.1:0", server.address }
    local client, upstream = t:pair(p, server)
    upstream:send "220 hello\r\n"
    client:expect "220 hello\r\n"
    upstream:finish()
    client:expect_eof()
  end)

  case_in_modes("what a client sends before the upstream is reached arrives", function(t, mode)
    local server = t:listen()
    local p = t:penstock { "--mode", mode, "127.0.0.1:0", server.address }
    local client = t:connect(p)
    local text = bulk.text(0, 100 * KB)
    client:send(text)
    local upstream = t:accept(server)
    upstream:expect(text)
  end)

  case_in_modes("a slow reader stops the sender; memory stays bounded, nothing is lost", function(t, mode)
    local server = t:listen("127.0.0.1:0", { rcvbuf = 16 * KB })
    local p = t:penstock { "--mode", mode, "127.0.0.1:0", server.address }
    local before_kb = p:memory_kb()
    local fills = {}
    for i = 1, 4 do
      local client, upstream = t:pair(p, server)
      fills[i] = { from = client, to = upstream, bytes = 0, offset = 0, finish = true }
      fills[i].bytes = bulk.fill(client, 70 * MB)
      fills[i].put, fills[i].got = fills[i].bytes, 0
    end
    local limit_kb = p:sanitizer() and 200 * KB or 60 * KB
    assert.is_true(p:memory_kb() < limit_kb, ("VmRSS is %d kB, was %d"):format(p:memory_kb(), before_kb))
    for _, fill in ipairs(fills) do
      fill.from:finish()
      bulk.run { fill }
    end
  end)

  case_in_modes("a client that does not read stops the upstream; the other way goes on", function(t, mode)
    local server = t:listen()
    local p = t:penstock { "--mode", mode, "127.0.0.1:0", server.address }
    local client, upstream = t:pair(p, server, { rcvbuf = 16 * KB })
    local down = { from = upstream, to = client, offset = 0, got = 0, finish = true }
    down.bytes = bulk.fill(upstream, 70 * MB)
    down.put = down.bytes
    bulk.run { { from = client, to = upstream, bytes = 5 * MB } }
    upstream:finish()
    bulk.run { down }
  end)

  case("a client that floods while the upstream is being dialled is held in the kernel", function(t)
    local hole = t:blackhole()
    local p = t:penstock { "--connect-timeout", "1500ms", "127.0.0.1:0", hole.address }
    local client = t:connect(p)
    bulk.fill(client, 70 * MB)
    assert.is_true(p:memory_kb() < (p:sanitizer() and 200 * KB or 60 * KB), "VmRSS is " .. p:memory_kb())
    p:expect_end { reason = "timeout" }
  end)
end)

describe("addresses:", function()
  local function expect_way(t, listener, address)
    local client = t:connect(address)
    local upstream = t:accept(listener)
    client:send "there"
    upstream:expect "there"
    upstream:send "back"
    client:expect "back"
    client:finish()
    upstream:expect_eof()
    upstream:close()
    client:expect_eof()
  end

  case_in_modes("IPv6 on both sides carries bytes", function(t, mode)
    local server = t:listen "[::1]:0"
    local p = t:penstock { "--mode", mode, "[::1]:0", server.address }
    assert.matches("^%[::1%]:%d+$", p.address)
    local client, upstream = t:pair(p, server)
    bulk.run {
      { from = client, to = upstream, bytes = 2 * MB, finish = true },
      { from = upstream, to = client, bytes = 2 * MB, finish = true },
    }
  end)

  case("[::]:0 takes clients of both families", function(t)
    local server = t:listen()
    local p = t:penstock { "[::]:0", server.address }
    expect_way(t, server, "127.0.0.1:" .. p.port)
    expect_way(t, server, "[::1]:" .. p.port)
  end)

  case("a bare port listens on loopback only and the log says so", function(t)
    local server = t:listen()
    local p = t:penstock { "0", server.address }
    assert.matches("^127%.0%.0%.1:%d+$", p.address)
    assert.matches("this machine only", p.err)
    expect_way(t, server, p.address)
    assert.is_nil((t:try_connect("127.0.0.2:" .. p.port)))
  end)

  case(":0 listens on every IPv4 address", function(t)
    local server = t:listen()
    local p = t:penstock { ":0", server.address }
    expect_way(t, server, "127.0.0.2:" .. p.port)
  end)

  case_in_modes("UNIX sockets on both sides carry bytes", function(t, mode)
    local folder = t:folder()
    local server = t:listen("unix:" .. folder .. "/upstream")
    local p = t:penstock { "--mode", mode, "unix:" .. folder .. "/listen", server.address }
    local client, upstream = t:pair(p, server)
    bulk.run {
      { from = client, to = upstream, bytes = 10 * MB, finish = true },
      { from = upstream, to = client, bytes = 10 * MB, finish = true },
    }
    p:stop()
    assert.is_nil(io.open(folder .. "/listen"), "the socket file is still there")
  end)

  case("a UNIX socket file that a dead process left is replaced", function(t)
    local folder = t:folder()
    t:listen("unix:" .. folder .. "/listen"):close() -- the file stays
    local server = t:listen()
    local p = t:penstock { "unix:" .. folder .. "/listen", server.address }
    expect_way(t, server, p.address)
  end)

  case("several LISTEN TARGET pairs go each to its own target", function(t)
    local a, b, c = t:listen(), t:listen(), t:listen()
    local p = t:penstock { "127.0.0.1:0", a.address, "0", b.address, "[::1]:0", c.address }
    assert.equal(3, #p.addresses)
    expect_way(t, b, p.addresses[2])
    expect_way(t, a, p.addresses[1])
    expect_way(t, c, p.addresses[3])
  end)

  case("a comma list of LISTEN goes to one target", function(t)
    local server = t:listen()
    local p = t:penstock { "127.0.0.1:0,[::1]:0,127.0.0.2:0", server.address }
    assert.equal(3, #p.addresses)
    for _, address in ipairs(p.addresses) do expect_way(t, server, address) end
  end)

  -- Ranges need fixed ports: three in a row that are free now. Somebody else may take one before penstock does, so
  -- they are looked for below the range from which the kernel gives ports out.
  local function free_range(t, n)
    for first = 20000 + math.random(0, 5000), 32000, n do
      local held = {}
      for i = 0, n - 1 do
        local ok, listener = pcall(t.listen, t, "127.0.0.1:" .. first + i)
        if not ok then break end
        held[#held + 1] = listener
      end
      for _, listener in ipairs(held) do listener:close() end
      if #held == n then return first end
    end
    error "no free ports in a row"
  end

  case("a port range maps port by port to an equally long one", function(t)
    local to = free_range(t, 3)
    local servers = {}
    for i = 0, 2 do servers[i] = t:listen("127.0.0.1:" .. to + i) end
    local from = free_range(t, 3)
    local p = t:penstock { ("127.0.0.1:%d-%d"):format(from, from + 2), ("127.0.0.1:%d-%d"):format(to, to + 2) }
    assert.same({ from, from + 1, from + 2 }, p.ports)
    for i = 0, 2 do expect_way(t, servers[i], p.addresses[i + 1]) end
  end)

  case("a port range to one port brings every client there", function(t)
    local server = t:listen()
    local from = free_range(t, 3)
    local p = t:penstock { ("127.0.0.1:%d-%d"):format(from, from + 2), server.address }
    for i = 1, 3 do expect_way(t, server, p.addresses[i]) end
  end)
end)
