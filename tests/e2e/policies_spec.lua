-- The ready policies over real sockets: one case each, of what only sockets and workers can show, and of rewriting in
-- pieces of random sizes for slow peers.
local e2e = require "tests.e2e.support.case"
local case = e2e.case
local peers = require "tests.e2e.support.peers"

-- Starts penstock with penstock.policy.<name> and these options (Lua text) in front of `server`.
local function start(t, name, options, server, arguments)
  local text = ('local ps = require "penstock"\nlocal policy = require "penstock.policy.%s" %s\nreturn policy, ps\n')
  local args = { "-p", t:file("policy.lua", text:format(name, options)) }
  for _, word in ipairs(arguments or {}) do args[#args + 1] = word end
  args[#args + 1], args[#args + 2] = "127.0.0.1:0", server.address
  return t:penstock(args)
end

-- Sends in pieces of random sizes, which arrive one by one.
local function send_in_pieces(socket, text, largest)
  local at = 1
  while at <= #text do
    local n = math.random(largest)
    socket:send(text:sub(at, at + n - 1))
    at = at + n
  end
end

describe("ready policies:", function()
  case("allow lets listed clients in and nobody else", function(t)
    local server = t:listen()
    local p = start(t, "allow", '{ "127/8", deny = "127.0.0.2" }', server)
    t:expect_echo(p, server)
    local client = t:connect(p, { from = "127.0.0.2:0" })
    client:expect_eof()
    p:expect_end { reason = "denied", detail = "not_allowed" }
  end)

  case("deny is given by two lines with -p, and by ps.listen in a list", function(t)
    local server = t:listen()
    local p = start(t, "deny", '{ "127/8", reset = true }', server)
    t:connect(p):expect_reset()
    p = t:penstock { "run", t:file("penstock.lua", ([[
      local ps = require "penstock"
      ps.listen { bind = "127.0.0.1:0", to = "%s", policy = {
        require "penstock.policy.allow" { "127/8" }, require "penstock.policy.deny" { "127.0.0.1" },
        require "penstock.policy.log" { format = "client {client_ip} {reason}" },
      } }
    ]]):format(server.address)) }
    t:connect(p):expect_eof()
    p:log "client 127.0.0.1 denied"
  end)

  case("rate counts a client's open connections over all workers", function(t)
    local server = t:listen()
    local p = start(t, "rate", '{ concurrent = 8, over = "reset" }', server, { "--workers", "2" })
    local open = {}
    for i = 1, 8 do open[i] = t:expect_echo(p, server) end
    for _ = 1, 4 do t:connect(p):expect_reset() end
    for i = 1, 8 do open[i]:reset() end
    p:access(12)
    for _ = 1, 8 do t:expect_echo(p, server) end
  end)

  case("log writes a line for each connection", function(t)
    local server = t:listen()
    local p = start(t, "log", '{ format = "json", fields = { "client_ip", "upstream", "bytes_up", "reason" } }', server)
    local client, upstream = t:expect_echo(p, server)
    client:finish()
    upstream:finish()
    p:log('{"client_ip":"127.0.0.1","upstream":"' .. server.address:gsub("%p", "%%%0") ..
      '","bytes_up":4,"reason":"eof"}')
  end)

  case("router leads by Host, and answers who asks for another name", function(t)
    local server, other = t:listen(), t:listen()
    local p = start(t, "router", ('{ names = { ["*.lab"] = %q }, unknown = ps.reply "no such name" }'):format(
      other.address), server)
    local client = t:connect(p)
    send_in_pieces(client, "GET / HTTP/1.1\r\nHost: www.lab\r\n\r\n", 5)
    t:accept(other):expect "GET / HTTP/1.1\r\nHost: www.lab\r\n\r\n"
    client = t:connect(p):send "GET / HTTP/1.1\r\nHost: www\r\n\r\n"
    client:expect "no such name"
    client:expect_eof()
  end)

  case("headers changes every request of a connection, in pieces of any size, for a slow server", function(t)
    local server = t:listen()
    local p = start(t, "headers", '{ set = { X = "2" }, forwarded = true, every = true }', server)
    local client, upstream = t:pair(p, server)
    local body = ("0\r\n\r\nX: 1\r\n"):rep(3000)
    local want = {}
    for i = 1, 10 do
      local text = ("PUT /%d HTTP/1.1\r\nX: 1\r\nContent-Length: %d\r\n\r\n%s"):format(i, #body, body)
      local chunked = ("PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n"):format(#body, body)
      send_in_pieces(client, text .. chunked, 5000)
      local head = "PUT /%d HTTP/1.1\r\nContent-Length: %d\r\nX-Forwarded-For: 127.0.0.1\r\nX: 2\r\n\r\n"
      want[#want + 1] = head:format(i, #body) .. body
      want[#want + 1] = ("PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nX-Forwarded-For: 127.0.0.1\r\nX: 2\r\n\r\n" ..
        "%x\r\n%s\r\n0\r\n\r\n"):format(#body, body)
      upstream:expect(table.concat(want))
      want = {}
      upstream:send "HTTP/1.1 204 No\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
      client:expect "HTTP/1.1 204 No\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    end
    client:finish()
    upstream:finish()
    p:expect_end { reason = "eof" }
  end)

  case("lines rewrites lines in pieces of any size", function(t)
    local server = t:listen()
    local p = start(t, "lines", '{ up = { { "secret", "***" } }, down = { { "(%d+)", "<%1>" } }, max = 1000 }', server)
    local client, upstream = t:pair(p, server)
    local line = "a secret 123\r\n" .. ("x"):rep(900) .. "secret\n" .. ("secret"):rep(200) .. "\n"
    send_in_pieces(client, line:rep(20), 700)
    upstream:expect(("a *** 123\r\n" .. ("x"):rep(900) .. "***\n" .. ("secret"):rep(200) .. "\n"):rep(20))
    send_in_pieces(upstream, ("12 a 3\n"):rep(300), 9)
    client:expect(("<12> a <3>\n"):rep(300))
  end)

  case("mirror copies to a second server, and goes on without it when it stalls", function(t)
    local server, second = t:listen(), t:listen()
    local p = start(t, "mirror", ("{ up = %q }"):format(second.address), server)
    local client, upstream = t:pair(p, server)
    client:send "copied"
    upstream:expect "copied"
    local copy = t:accept(second)
    copy:expect "copied"
    local big = ("x"):rep(2 ^ 20)
    for _ = 1, 16 do -- the second server reads nothing: its queue and its socket's are full soon
      client:send(big)
      upstream:expect(big)
    end
    upstream:send "answer"
    client:expect "answer"
  end)

  case("a mirror that is not there changes nothing", function(t)
    local server = t:listen()
    local p = start(t, "mirror", ("{ up = %q }"):format(t:refusing().address), server)
    for _ = 1, 3 do t:expect_echo(p, server) end
  end)

  case("tarpit sends a byte now and then, and ends with its client", function(t)
    local server = t:listen()
    local p = start(t, "tarpit", '{ send = "ab", every = "50ms" }', server)
    local client = t:connect(p)
    client:expect "ababab"
    client:reset()
    p:expect_end { reason = "reset", side = "client" }
    assert.is_nil(server:try_accept(0))
  end)

  case("quota lets no byte over it through, over all connections of a client", function(t)
    local server = t:listen()
    local p = start(t, "quota", '{ client = 1000000, count = "down", window = "24h", over = "reset" }', server)
    local client, upstream = t:pair(p, server)
    upstream:send(("x"):rep(600000))
    client:expect(("x"):rep(600000))
    client:finish()
    upstream:finish()
    p:expect_end { reason = "eof" }
    client, upstream = t:pair(p, server)
    upstream:send(("x"):rep(400000))
    client:expect(("x"):rep(400000))
    upstream:send "y"
    client:expect_reset()
    p:expect_end({ reason = "denied", detail = "quota" }, 2)
    t:connect(p):expect_reset()
  end)

  case("redis answers what it denies between the server's replies, in pieces of any size", function(t)
    local server = t:listen()
    local p = start(t, "redis", '{ deny = { "FLUSHALL" } }', server)
    local client, upstream = t:pair(p, server)
    local set = "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$20000\r\n" .. ("v"):rep(20000) .. "\r\n"
    local want = {}
    for _ = 1, 20 do
      send_in_pieces(client, set .. "*1\r\n$8\r\nflushall\r\n", 5000)
      want[#want + 1] = "+OK\r\n-ERR command 'flushall' is not allowed here\r\n"
    end
    upstream:expect(set:rep(20))
    send_in_pieces(upstream, ("+OK\r\n"):rep(20), 3)
    client:expect(table.concat(want))
    client:finish()
    upstream:expect_eof()
    upstream:finish()
    client:expect_eof()
    p:expect_end { reason = "eof" }
  end)

  peers.case_with("redis-server", "redis stands before a real server, with transactions and subscriptions", function(t)
    local port = peers.free_port(t)
    local redis = t:spawn { "redis-server", "--port", tostring(port), "--save", "", "--dir", t:folder() }
    peers.wait_for_listener(t, "127.0.0.1:" .. port, redis)
    local p = start(t, "redis", '{ deny = { "FLUSHALL", "CONFIG SET" } }', { address = "127.0.0.1:" .. port })
    local client = t:connect(p)
    client:send "SET k v\r\nFLUSHALL\r\nGET k\r\nconfig set a b\r\n"
    client:send "MULTI\r\nINCR n\r\nFLUSHALL\r\nEXEC\r\nGET n\r\nNOSUCH\r\n"
    local denied = "-ERR command '%s' is not allowed here\r\n"
    client:expect("+OK\r\n" .. denied:format "flushall" .. "$1\r\nv\r\n" .. denied:format "config set" ..
      "+OK\r\n+QUEUED\r\n" .. denied:format "flushall" ..
      "-EXECABORT Transaction discarded because of previous errors.\r\n$-1\r\n-ERR unknown command 'NOSUCH'")
    local subscriber = t:connect(p):send "*2\r\n$9\r\nSUBSCRIBE\r\n$1\r\nc\r\n"
    subscriber:expect "*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n"
    t:connect(p):send("PUBLISH c hello\r\n"):expect ":1\r\n"
    subscriber:expect "*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$5\r\nhello\r\n"
    subscriber:send "FLUSHALL\r\n"
    subscriber:expect_reset()
  end)
end)
