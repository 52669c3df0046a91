-- Reaching an upstream: every target, every address of a name, one deadline; names without blocking anybody.
local e2e = require "tests.e2e.support.case"
local dns = require "tests.e2e.support.dns"
local case, sys = e2e.case, e2e.sys

-- Two addresses with one port: a listener on `first`, and what `make(address)` makes on `second`.
local function same_port(t, first, second, make)
  for _ = 1, 50 do
    local a = t:listen(first .. ":0")
    local ok, b = pcall(make, second .. ":" .. a.port)
    if ok then return a, b end
    a:close()
  end
  error "no port is free on both addresses"
end

local function expect_way(t, p, listener)
  local client, upstream = t:expect_echo(p, listener)
  client:close()
  upstream:close()
end

describe("targets:", function()
  case("a target that refuses is passed over for the next", function(t)
    local server = t:listen()
    local p = t:penstock { "127.0.0.1:0", t:refusing().address .. "," .. t:refusing().address .. "," .. server.address }
    for i = 1, 5 do
      expect_way(t, p, server)
      p:expect_end({ reason = "eof", upstream = server.address }, i)
    end
  end)

  case("when all refuse, the client is reset and the reason is refused", function(t)
    local last = t:refusing()
    local p = t:penstock { "127.0.0.1:0", t:refusing().address .. "," .. last.address }
    t:connect(p):expect_reset()
    p:expect_end { reason = "refused", side = "upstream", upstream = last.address, connect_ms = "-" }
    p:log("warn .*cannot connect to (" .. last.address:gsub("%p", "%%%0") .. ")")
  end)

  case("a UNIX socket that does not exist, or that nobody listens on, refuses", function(t)
    local folder = t:folder()
    local server = t:listen()
    t:listen("unix:" .. folder .. "/dead"):close()
    local p = t:penstock {
      "127.0.0.1:0", "unix:" .. folder .. "/missing",
      "127.0.0.1:0", ("unix:%s/missing,unix:%s/dead,%s"):format(folder, folder, server.address),
    }
    t:connect(p):expect_reset()
    p:expect_end { reason = "refused" }
    local client = t:connect(p.addresses[2])
    t:accept(server):send "here"
    client:expect "here"
  end)

  case("a target that does not answer ends in a timeout, in time", function(t)
    local p = t:penstock { "--connect-timeout", "300ms", "127.0.0.1:0", t:blackhole().address }
    t:connect(p):expect_reset()
    local line = p:expect_end { reason = "timeout", side = "upstream", detail = "connect" }
    assert.is_true(line.duration_ms >= 299)
  end)

  case("a target that does not answer leaves time for the next, within one deadline", function(t)
    local server = t:listen()
    local targets = t:blackhole().address .. "," .. t:refusing().address .. "," .. server.address
    local p = t:penstock { "--connect-timeout", "1500ms", "127.0.0.1:0", targets }
    expect_way(t, p, server)
    local line = p:expect_end { reason = "eof", upstream = server.address }
    assert.is_true(line.connect_ms >= 499, "the first target had no time to answer")
  end)

  case("a slow target delays only its own clients", function(t)
    local server = t:listen()
    local p = t:penstock { "127.0.0.1:0", server.address, "127.0.0.1:0", t:blackhole().address }
    t:connect(p.addresses[2])
    for _ = 1, 3 do expect_way(t, p, server) end
    p:access(3)
  end)

  case("an upstream that comes up later is reached then", function(t)
    local place = t:refusing()
    local p = t:penstock { "127.0.0.1:0", place.address }
    t:connect(p):expect_reset()
    local address = place.address
    place:close()
    expect_way(t, p, t:listen(address))
  end)

  case("--bind-source is the address that the upstream sees", function(t)
    local server = t:listen()
    local p = t:penstock { "--bind-source", "127.0.0.2", "127.0.0.1:0", server.address }
    local _, upstream = t:expect_echo(p, server)
    assert.matches("^127%.0%.0%.2:", upstream.from)
  end)

  case("--bind-source of the other family passes a target over", function(t)
    local six, four = t:listen "[::1]:0", t:listen()
    local p = t:penstock { "--bind-source", "127.0.0.2", "127.0.0.1:0", six.address .. "," .. four.address }
    expect_way(t, p, four)
    assert.is_nil(six:try_accept(0))
  end)

  case("dialling an ephemeral port that nobody listens on does not meet itself", function(t)
    local p = t:penstock { "127.0.0.1:0", "127.0.0.1:" .. t:refusing().port }
    for i = 1, 50 do
      t:connect(p):expect_reset()
      p:expect_end({ reason = "refused" }, i)
    end
  end)
end)

describe("names:", function()
  case("localhost needs no name server", function(t)
    local silent = t:deaf_datagrams()
    local server = t:listen()
    local p = t:penstock { "--resolver", silent.address, "127.0.0.1:0", "localhost:" .. server.port }
    expect_way(t, p, server)
  end)

  case("a name with one address is reached", function(t)
    local server = t:listen()
    local names = dns.start(t, { "--host-record=one.test,127.0.0.1" })
    local p = t:penstock { "--resolver", names.address, "127.0.0.1:0", "one.test:" .. server.port }
    expect_way(t, p, server)
    p:expect_end { reason = "eof", upstream = server.address }
  end)

  case("a name with both families is reached by IPv6", function(t)
    local six, four = same_port(t, "[::1]", "127.0.0.1", function(at) return t:listen(at) end)
    local names = dns.start(t, { "--host-record=both.test,127.0.0.1,::1" })
    local p = t:penstock { "--resolver", names.address, "127.0.0.1:0", "both.test:" .. four.port }
    expect_way(t, p, six)
    assert.is_nil(four:try_accept(0))
  end)

  case("where IPv6 refuses, IPv4 is used", function(t)
    local server = same_port(t, "127.0.0.1", "[::1]", function(at) return t:listen(at, { bound_only = true }) end)
    local names = dns.start(t, { "--host-record=both.test,127.0.0.1,::1" })
    local p = t:penstock { "--resolver", names.address, "127.0.0.1:0", "both.test:" .. server.port }
    expect_way(t, p, server)
  end)

  case("where IPv6 does not answer, IPv4 is used after a moment, not after the timeout", function(t)
    local server = same_port(t, "127.0.0.1", "[::1]", function(at) return t:blackhole(at) end)
    local names = dns.start(t, { "--host-record=both.test,127.0.0.1,::1" })
    local p = t:penstock {
      "--connect-timeout", "1h", "--resolver", names.address, "127.0.0.1:0", "both.test:" .. server.port,
    }
    expect_way(t, p, server)
  end)

  case("where IPv6 has no route, IPv4 is used", function(t)
    local server = t:listen()
    local names = dns.start(t, { "--host-record=both.test,127.0.0.1,100::1" })
    local p = t:penstock { "--resolver", names.address, "127.0.0.1:0", "both.test:" .. server.port }
    expect_way(t, p, server)
  end)

  case("all addresses of a name are tried", function(t)
    local server = t:listen "127.0.0.9:0"
    local names = dns.start(t, {
      "--address=/many.test/127.0.0.6", "--address=/many.test/127.0.0.7", "--address=/many.test/127.0.0.8",
      "--address=/many.test/127.0.0.9",
    })
    local p = t:penstock { "--resolver", names.address, "127.0.0.1:0", "many.test:" .. server.port }
    for _ = 1, 3 do expect_way(t, p, server) end
  end)

  case("a name that does not exist ends its client by reset, reason dns", function(t)
    local names = dns.start(t, {})
    local p = t:penstock { "--resolver", names.address, "127.0.0.1:0", "missing.test:80" }
    t:connect(p):expect_reset()
    local line = p:expect_end { reason = "dns", side = "upstream", upstream = "missing.test:80" }
    assert.not_equal("-", line.detail)
  end)

  case("a name that does not exist is passed over for the next target", function(t)
    local server = t:listen()
    local names = dns.start(t, {})
    local p = t:penstock { "--resolver", names.address, "127.0.0.1:0", "missing.test:80," .. server.address }
    expect_way(t, p, server)
  end)

  case("the last good answer is used while the name server is down", function(t)
    local old = t:listen "127.0.0.3:0"
    local names = dns.start(t, { "--host-record=kept.test,127.0.0.3,1" })
    local p = t:penstock { "--resolver", names.address, "127.0.0.1:0", "kept.test:" .. old.port }
    expect_way(t, p, old)
    names:kill()
    -- Answers are believed for a second: from then on the server is asked again.
    sys.wait_until(function()
      expect_way(t, p, old)
      return p.err:find "last good answer"
    end)
    p:log "kept%.test: .*using its last good (answer)"
    expect_way(t, p, old)
  end)

  case("a dead name server does not delay connections to addresses", function(t)
    local silent = t:deaf_datagrams()
    local server = t:listen()
    local p = t:penstock {
      "--resolver", silent.address, "--connect-timeout", "2s", "127.0.0.1:0", "slow.test:80", "127.0.0.1:0",
      server.address,
    }
    local waiting = t:connect(p.addresses[1])
    for _ = 1, 3 do
      local client = t:connect(p.addresses[2])
      local upstream = t:accept(server)
      client:send "fast"
      upstream:expect "fast"
    end
    assert.equal(0, #p:access_lines())
    waiting:expect_reset()
    p:expect_end { reason = "timeout", detail = "connect" }
  end)

  case("a dead name server leaves time for the next target", function(t)
    local silent = t:deaf_datagrams()
    local server = t:listen()
    local p = t:penstock {
      "--resolver", silent.address, "--connect-timeout", "2s", "127.0.0.1:0", "slow.test:80," .. server.address,
    }
    expect_way(t, p, server)
  end)

  case("a stop while a name is being looked up is clean", function(t)
    local silent = t:deaf_datagrams()
    local p = t:penstock { "--resolver", silent.address, "--drain-timeout", "0", "127.0.0.1:0", "slow.test:80" }
    local client = t:connect(p)
    client:send "question"
    sys.pass(0.1)
    p:stop()
    client:expect_reset()
    p:expect_end { reason = "shutdown" }
  end)
end)
