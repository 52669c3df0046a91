-- conn:capture(): what goes over a connection, in a file that Wireshark opens.
local e2e = require "tests.e2e.support.case"
local bulk = require "tests.e2e.support.bulk"
local capture = require "tests.e2e.support.capture"
local tls = require "tests.e2e.support.tls"
local case, sys = e2e.case, e2e.sys

-- Penstock with a policy in which $FILE is a path in the case's folder. Returns it and the path.
local function start(t, policy, args, options)
  local path = t:folder() .. "/out.pcapng"
  local words = { "-p", t:file("p.lua", (policy:gsub("%$FILE", path))) }
  for _, word in ipairs(args) do words[#words + 1] = word end
  return t:penstock(words, options), path
end

local client_side = [[return { connect = function(conn) assert(conn:capture("$FILE")) end }]]

-- In capitals upstream.
local both_sides = [[return {
  connect = function(conn) assert(conn:capture("$FILE", { side = "both" })) end,
  data = function(_, dir, chunk) return dir == "up" and chunk:upper() or nil end,
}]]

local function ping(client, upstream)
  client:send "ping"
  upstream:expect "PING"
  upstream:send "pong"
  client:expect "pong"
end

local function size_of(path)
  local text = sys.read_file(path)
  return text and #text
end

describe("conn:capture", function()
  case("has both sides, each with what went over it, and nothing that Wireshark finds fault with", function(t)
    local server = t:listen()
    local p, path = start(t, both_sides, { "127.0.0.1:0", server.address })
    local client, upstream = t:pair(p, server)
    ping(client, upstream)
    client:finish()
    upstream:expect_eof()
    upstream:send "rest"
    upstream:finish()
    client:expect "rest"
    client:expect_eof()
    local who = p:expect_end({ reason = "eof" }).client
    p:stop()
    capture.expect_sound(t, path)
    assert.same({ "ping", "pongrest" }, { capture.bytes(t, path, 0) })
    assert.same({ "PING", "pongrest" }, { capture.bytes(t, path, 1) })
    local syns = capture.rows(t, path, "tcp.flags.syn == 1 && tcp.flags.ack == 0", "frame.interface_name",
      "tcp.srcport", "tcp.dstport", "frame.comment")
    assert.same({ "client", who:match "%d+$", tostring(p.port),
      ("connection 1 of %s: its client %s"):format(p.address, who) }, syns[1])
    assert.same({ "upstream", server.address:match "%d+$" }, { syns[2][1], syns[2][3] })
    assert.equal(("connection 1 of %s: to its upstream %s"):format(p.address, server.address), syns[2][4])
    assert.equal(4, #capture.rows(t, path, "tcp.flags.fin == 1", "frame.number"))
  end)

  case("tells an abort from an end", function(t)
    local server = t:listen()
    local p, path = start(t, both_sides, { "127.0.0.1:0", server.address })
    local client, upstream = t:pair(p, server)
    ping(client, upstream)
    client:reset()
    upstream:expect_reset()
    local who = p:expect_end({ reason = "reset" }).client
    p:stop()
    capture.expect_sound(t, path)
    local resets = capture.rows(t, path, "tcp.flags.reset == 1", "frame.interface_name", "tcp.srcport")
    assert.same({ "client", who:match "%d+$" }, resets[1])
    assert.equal("upstream", resets[2][1])
    assert.same({}, capture.rows(t, path, "tcp.flags.fin == 1", "frame.number"))
  end)

  case("has the plain text of TLS, on either side", function(t)
    local certificate = tls.certificate(t:folder(), "a.lab")
    local server = t:listen()
    local p, path = start(t, both_sides, { "--tls-cert", certificate.cert, "--tls-key", certificate.key,
      "--tls-insecure", "127.0.0.1:0", "tls://" .. server.address })
    local client = tls.client(t:connect(p))
    client:handshake()
    local upstream = tls.server(t:accept(server), certificate)
    upstream:handshake()
    ping(client, upstream)
    client:goodbye()
    upstream:expect_end "close_notify"
    upstream:goodbye()
    client:expect_end "close_notify"
    p:expect_end { reason = "eof" }
    p:stop()
    capture.expect_sound(t, path)
    assert.same({ "ping", "pong" }, { capture.bytes(t, path, 0) })
    assert.same({ "PING", "pong" }, { capture.bytes(t, path, 1) })
  end)

  case("has UNIX sockets and IPv6", function(t)
    local server = t:listen("unix:" .. t:folder() .. "/upstream.sock")
    local p, path = start(t, both_sides, { "[::1]:0", server.address })
    local client, upstream = t:pair(p, server)
    ping(client, upstream)
    client:close()
    upstream:expect_eof()
    upstream:close()
    p:access(1)
    p:stop()
    capture.expect_sound(t, path)
    assert.same({ "ping", "pong" }, { capture.bytes(t, path, 0) })
    assert.same({ "PING", "pong" }, { capture.bytes(t, path, 1) })
    local syns = capture.rows(t, path, "tcp.flags.syn == 1 && tcp.flags.ack == 0", "ipv6.dst", "ip.dst")
    assert.same({ { "::1", "" }, { "", "127.0.0.1" } }, syns)
  end)

  case("has every byte from its beginning on where bytes were spliced before", function(t)
    local server = t:listen()
    local p, path = start(t, [[return { filter = { up = function(conn, rd, wr)
      local byte = rd:exactly(1)
      assert(conn:capture("$FILE"))
      wr:write(byte)
    end } }]], { "127.0.0.1:0", server.address })
    local client, upstream = t:pair(p, server)
    bulk.run { { from = upstream, to = client, bytes = 4000000, offset = 0 } } -- long since spliced
    client:send "x"
    upstream:expect "x"
    p:log "capture goes to"
    bulk.run { { from = upstream, to = client, bytes = 3000000, offset = 4000000 } }
    client:close()
    upstream:expect_eof()
    upstream:close()
    p:access(1)
    p:stop()
    capture.expect_sound(t, path)
    local up, down = capture.bytes(t, path, 0)
    assert.equal(3000000, #down)
    assert.is_true(down == bulk.text(4000000, 3000000))
    assert.equal("", up)
  end)

  case("ends after the first bytes, and the relay, which has copied, splices again", function(t)
    local server = t:listen()
    local p, path = start(t, [[local ps = require "penstock"
    return {
      connect = function(conn)
        assert(conn:capture("$FILE", { first = conn.id == 1 and "100K" or "100M" }))
      end,
      data = function(conn, dir)
        if dir == "down" then return ps.PASS end
        conn.log.info("%d: down is %s", conn.id, conn.mode.down)
      end,
    }]], { "--mode", "splice", "127.0.0.1:0", server.address })
    for i, mode in ipairs { "splice", "copy" } do
      local client, upstream = t:pair(p, server)
      bulk.run { { from = upstream, to = client, bytes = 3000000, offset = 0, finish = true } }
      client:send "?"
      p:log(i .. ": down is " .. mode)
      client:close()
    end
    p:stop()
    capture.expect_sound(t, path)
    local _, down = capture.bytes(t, path, 0)
    assert.equal(102400, #down)
    assert.is_true(down == bulk.text(0, 102400))
  end)

  case("has what a hook had looked at before, and the end that was seen with it", function(t)
    local server = t:listen()
    local p, path = start(t, [[return { connect = function(conn)
      local line = conn:peek_line()
      conn:peek(100)
      assert(conn:capture("$FILE", { side = "both" }))
      conn.log.info("has seen %s", line)
    end }]], { "127.0.0.1:0", server.address })
    local client = t:connect(p)
    client:send("HELLO\nmore"):finish()
    local upstream = t:accept(server)
    upstream:expect "HELLO\nmore"
    upstream:send "bye"
    upstream:close()
    client:expect "bye"
    client:expect_eof()
    p:log "has seen HELLO"
    p:access(1)
    p:stop()
    capture.expect_sound(t, path)
    for number = 0, 1 do assert.same({ "HELLO\nmore", "bye" }, { capture.bytes(t, path, number) }) end
    assert.equal(4, #capture.rows(t, path, "tcp.flags.fin == 1", "frame.number"))
  end)

  case("ends with conn:capture(false)", function(t)
    local server = t:listen()
    local p, path = start(t, [[return {
      connect = function(conn) assert(conn:capture("$FILE")) end,
      data = function(conn, dir, chunk)
        if chunk == "stop" then assert(conn:capture(false)) end
      end,
    }]], { "127.0.0.1:0", server.address })
    local client, upstream = t:expect_echo(p, server)
    client:send "stop"
    upstream:expect "stop"
    client:send "more"
    upstream:expect "more"
    client:close()
    upstream:close()
    p:access(1)
    p:stop()
    capture.expect_sound(t, path)
    assert.same({ "pingstop", "pong" }, { capture.bytes(t, path, 0) })
  end)

  case("of many connections of all workers goes to one file, whole", function(t)
    local server = t:listen()
    local p, path = start(t, both_sides, { "--workers", "2", "127.0.0.1:0", server.address })
    local clients, upstreams = {}, {}
    for i = 1, 40 do
      clients[i] = t:connect(p)
      clients[i]:send(("c%02d"):format(i))
    end
    for _ = 1, 40 do
      local upstream = t:accept(server)
      local name = upstream:read(3)
      upstreams[tonumber(name:match "%d+")] = upstream
    end
    for i = 1, 40 do
      upstreams[i]:send(("u%02d"):format(i))
      clients[i]:expect(("u%02d"):format(i))
      clients[i]:close()
      upstreams[i]:expect_eof()
      upstreams[i]:close()
    end
    p:access(40)
    p:stop()
    capture.expect_sound(t, path)
    local seen = {}
    for _, row in ipairs(capture.rows(t, path, "tcp.len > 0", "tcp.payload")) do
      local text = row[1]:gsub("%x%x", function(byte) return string.char(tonumber(byte, 16)) end)
      seen[text] = (seen[text] or 0) + 1
    end
    for i = 1, 40 do
      assert.same({ 1, 1, 2 }, { seen[("c%02d"):format(i)], seen[("C%02d"):format(i)], seen[("u%02d"):format(i)] })
    end
  end)

  case("goes on at the end of a file of a run before", function(t)
    local server = t:listen()
    local path
    for _ = 1, 2 do
      local p
      p, path = start(t, client_side, { "127.0.0.1:0", server.address })
      local client, upstream = t:expect_echo(p, server)
      client:close()
      upstream:close()
      p:access(1)
      p:stop()
    end
    capture.expect_sound(t, path)
    assert.same({ "ping", "pong" }, { capture.bytes(t, path, 0) })
    assert.same({ "ping", "pong" }, { capture.bytes(t, path, 1) })
  end)

  case("keeps the last of it within its size, in a file and an older half", function(t)
    local server = t:listen()
    local p, path = start(t, [[return { connect = function(conn)
      assert(conn:capture("$FILE", { max = "1M" }))
    end }]], { "127.0.0.1:0", server.address })
    local client, upstream = t:pair(p, server)
    bulk.run { { from = upstream, to = client, bytes = 5000000, offset = 0, finish = true } }
    client:close()
    p:access(1)
    p:stop()
    local newer, older = size_of(path), size_of(path .. ".1")
    assert.is_true(newer <= 524288 and older <= 524288 and older > 400000, newer .. " and " .. older)
    for _, file in ipairs { path .. ".1", path } do
      assert.equal("", capture.read(t, file, "-Y", "_ws.malformed"))
    end
    local last = capture.rows(t, path, "tcp.len > 0 && tcp.srcport == " .. p.port, "tcp.payload")
    local bytes = last[#last][1]:gsub("%x%x", function(byte) return string.char(tonumber(byte, 16)) end)
    assert.is_true(bytes == bulk.text(5000000 - #bytes, #bytes))
  end)

  case("begins the file anew when somebody has taken it away", function(t)
    local server = t:listen()
    local p, path = start(t, client_side, { "127.0.0.1:0", server.address })
    local client, upstream = t:expect_echo(p, server)
    assert.truthy(sys.wait_until(function() return (sys.read_file(path) or ""):find("pong", 1, true) end))
    assert(os.rename(path, path .. ".old"))
    client:send "more"
    upstream:expect "more"
    assert.truthy(sys.wait_until(function() return (sys.read_file(path) or ""):find("more", 1, true) end))
    client:close()
    upstream:close()
    p:access(1)
    p:stop()
    assert.same({ "ping", "pong" }, { capture.bytes(t, path .. ".old", 0) })
    assert.same({ "more", "" }, { capture.bytes(t, path, 0) })
  end)

  case("costs packets and no connection when the disk is full, and the file stays whole", function(t)
    local server = t:listen()
    local p, path = start(t, client_side, { "127.0.0.1:0", server.address },
      { under = { "prlimit", "--fsize=200000" } })
    local client, upstream = t:pair(p, server)
    bulk.run { { from = upstream, to = client, bytes = 1000000, offset = 0, finish = true } }
    client:close()
    p:expect_end { reason = "eof", down = 1000000 }
    p:log "warn  capture \"[^\"]+\": packets are missing: File too large"
    p:stop()
    p:log "warn  capture \"[^\"]+\": %d+ bytes of packets are missing in all"
    assert.is_true(size_of(path) <= 200000)
    assert.equal("", capture.read(t, path, "-Y", "_ws.malformed"))
  end)

  case("answers what is wrong with the file, and touches nothing that is no capture", function(t)
    local folder = t:folder()
    local notes = t:file("notes.txt", "do not write here")
    os.execute(("mkfifo %s/pipe && ln -s notes.txt %s/link"):format(folder, folder))
    local server = t:listen()
    local p = t:penstock { "-p", t:file("p.lua", ([[return { connect = function(conn)
      for _, name in ipairs { "notes.txt", "pipe", "link", "nowhere/x", "" } do
        local ok, word, detail = conn:capture(%q .. "/" .. name)
        conn.log.info("%%s: %%s %%s %%s", name, tostring(ok), word, detail)
      end
    end }]]):format(folder)), "127.0.0.1:0", server.address }
    t:expect_echo(p, server)
    p:log "notes.txt: nil system %S+: there is a file of this name that is no capture\n"
    p:log "pipe: nil system %S+: it is no regular file\n"
    p:log "link: nil system %S+: Too many levels of symbolic links\n"
    p:log "nowhere/x: nil system %S+: No such file or directory\n"
    p:log ": nil system %S+: Is a directory\n"
    assert.equal("do not write here", sys.read_file(notes))
  end)

  case("is refused with what would be right", function(t)
    local server = t:listen()
    local p = t:penstock { "-p", t:file("p.lua", [[return { connect = function(conn)
      for _, call in ipairs { { }, { 1 }, { "a\0b" }, { "f", { sides = "both" } }, { "f", { side = "left" } },
        { "f", { max = "1K" } }, { "f", { first = -1 } } } do
        local ok, why = pcall(conn.capture, conn, call[1], call[2])
        conn.log.info("%s %s", tostring(ok), why)
      end
    end }]]), "127.0.0.1:0", server.address }
    t:expect_echo(p, server)
    for _ = 1, 3 do p:log 'false [^\n]*the right call is conn:capture%("path.pcapng"' end
    p:log 'no option "sides"[^\n]*side'
    p:log 'side is "client", "upstream" or "both"'
    p:log "max is a size of 131072 or more, or 0 for no limit"
    p:log "first is a size of 1 or more"
  end)

  case("asked for in the accept hook begins where the client's bytes do, behind PROXY header and TLS", function(t)
    local certificate = tls.certificate(t:folder(), "a.lab")
    local server = t:listen()
    local p, path = start(t, [[return { accept = function(conn) assert(conn:capture("$FILE")) end }]],
      { "--accept-proxy", "127.0.0.1", "--tls-cert", certificate.cert, "--tls-key", certificate.key, "127.0.0.1:0",
        server.address })
    local socket = t:connect(p)
    socket:send "PROXY TCP4 192.0.2.7 192.0.2.1 4711 443\r\n"
    local client = tls.client(socket)
    client:handshake()
    client:send "ping"
    local upstream = t:accept(server)
    upstream:expect "ping"
    upstream:close()
    client:expect_end "close_notify"
    socket:close()
    p:access(1)
    p:stop()
    capture.expect_sound(t, path)
    assert.same({ "ping", "" }, { capture.bytes(t, path, 0) })
    assert.same({ { "192.0.2.7", "4711", "192.0.2.1", "443" } }, capture.rows(t, path,
      "tcp.flags.syn == 1 && tcp.flags.ack == 0", "ip.src", "tcp.srcport", "ip.dst", "tcp.dstport"))
  end)

  case("writes no file in penstock test", function(t)
    local path = t:folder() .. "/out.pcapng"
    local policy = t:file("p.lua", ([[return { connect = function(conn)
      assert(conn:capture(%q))
      return "127.0.0.1:7001"
    end }]]):format(path))
    local spec = t:file("capture_spec.lua", ([[
      local t = require "penstock.test"
      it("is taken", function()
        local p = t.load(%q)
        local u, c = p:upstream "127.0.0.1:7001", p:client()
        c:send "ping"
        assert.equal("ping", u:received())
      end)]]):format(policy))
    local status, err, out = t:run { "test", spec }
    assert.equal(0, status, out .. err)
    assert.is_nil(sys.read_file(path))
  end)
end)
