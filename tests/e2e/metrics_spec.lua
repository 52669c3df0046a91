-- penstock's own metrics: the numbers are those of what has happened, over all workers, and a reload keeps them.
local admin = require "tests.e2e.support.admin"
local e2e = require "tests.e2e.support.case"
local dns = require "tests.e2e.support.dns"
local peers = require "tests.e2e.support.peers"
local tls = require "tests.e2e.support.tls"
local case, sys = e2e.case, e2e.sys

-- A configuration with these lines and, first, a listener that answers with ps.metrics().
local function write(t, text, ...)
  return t:file("penstock.lua", [[
    local ps = require "penstock"
    ps.listen { name = "page", bind = "127.0.0.1:0",
      policy = { connect = function() return ps.reply(ps.metrics()) end } }
  ]] .. text:format(...))
end

local function start(t, workers, text, ...)
  return t:penstock { "--workers", workers, "run", write(t, text, ...) }
end

local function page(t, p)
  local client = t:connect(p.addresses[1])
  local text = client:read_all()
  client:close()
  return text
end

-- The value of a series, "name" or 'name{label="value"}'.
local function value(text, series)
  return tonumber(text:match("\n" .. series:gsub("%p", "%%%0") .. " (%S+)\n"))
end

-- Reads the page until all of these series have these values: what has ended for a client ends here a little later.
local function expect(t, p, want)
  local text, wrong
  local found = sys.wait_until(function()
    text, wrong = page(t, p), nil
    for series, number in pairs(want) do
      if value(text, series) ~= number then wrong = series end
    end
    return not wrong
  end)
  if not found then error(("%s is %s, not %s"):format(wrong, tostring(value(text, wrong)), want[wrong]), 2) end
  return text
end

local function reload(p, pattern)
  local from = #p.err + 1
  p:signal "HUP"
  p:log(pattern or "version %d+ is in force", from)
end

-- When a certificate expires, by openssl(1) and date(1).
local function end_of(certificate)
  local pipe = assert(io.popen(('date -d "$(openssl x509 -enddate -noout -in %s | cut -d= -f2)" +%%s'):format(
    certificate.cert)))
  local seconds = tonumber(pipe:read "*a")
  pipe:close()
  return assert(seconds)
end

local function expiry_of(listener, side, file)
  return ('penstock_tls_certificate_expiry_timestamp_seconds{listener="%s",side="%s",file="%s"}'):format(listener, side,
    file)
end

local function end_both(client, upstream)
  client:finish()
  upstream:expect_eof()
  upstream:finish()
  client:expect_eof()
end

describe("penstock's own metrics:", function()
  case("connections, reasons and bytes add up over all workers", function(t)
    local server = t:listen()
    local p = start(t, 4, 'ps.listen { name = "l", bind = "127.0.0.1:0", to = %q }', server.address)
    local open = {}
    for i = 1, 40 do
      local client, upstream = t:pair(p.addresses[2], server)
      client:send(("u"):rep(10))
      upstream:expect(("u"):rep(10)):send(("d"):rep(1000))
      client:expect(("d"):rep(1000))
      open[i] = { client, upstream }
    end
    expect(t, p, {
      ['penstock_connections{listener="l"}'] = 40,
      ['penstock_connections_total{listener="l",reason="eof"}'] = 0,
      ['penstock_bytes_total{listener="l",direction="up"}'] = 400,
      ['penstock_bytes_total{listener="l",direction="down"}'] = 40000,
    })
    for i = 1, 30 do end_both(open[i][1], open[i][2]) end
    for i = 31, 37 do open[i][1]:reset() end
    local text = expect(t, p, {
      ['penstock_connections{listener="l"}'] = 3,
      ['penstock_connections_total{listener="l",reason="eof"}'] = 30,
      ['penstock_connections_total{listener="l",reason="reset"}'] = 7,
      ['penstock_bytes_total{listener="l",direction="down"}'] = 40000,
      ['penstock_dials_total{listener="l",result="ok"}'] = 40,
      ['penstock_connect_seconds_count{listener="l"}'] = 40,
      ['penstock_first_byte_seconds_count{listener="l"}'] = 40,
      ['penstock_connection_seconds_count{listener="l"}'] = 37,
      ['penstock_connection_seconds_bucket{listener="l",le="+Inf"}'] = 37,
    })
    local workers = 0
    for _ in text:gmatch "\npenstock_loop_lag_seconds{worker=" do workers = workers + 1 end
    assert.equal(4, workers)
  end)

  case("dials that fail count by their result, and so do connections", function(t)
    local refusing = t:refusing()
    local p = start(t, 1, [[
      local tries = 0
      ps.listen { name = "refused", bind = "127.0.0.1:0", to = %q }
      ps.listen { name = "unknown", bind = "127.0.0.1:0", to = "nowhere.invalid:1" }
      ps.listen { name = "retry", bind = "127.0.0.1:0", to = %q, policy = {
        failed = function(conn) tries = tries + 1 if tries == 1 then return %q end end } }
    ]], refusing.address, refusing.address, refusing.address)
    for i = 2, 4 do t:connect(p.addresses[i]):read_all() end
    expect(t, p, {
      ['penstock_dials_total{listener="refused",result="refused"}'] = 1,
      ['penstock_connections_total{listener="refused",reason="refused"}'] = 1,
      ['penstock_dials_total{listener="unknown",result="dns"}'] = 1,
      ['penstock_connections_total{listener="unknown",reason="dns"}'] = 1,
      ['penstock_dials_total{listener="retry",result="refused"}'] = 2,
      ['penstock_connect_seconds_count{listener="retry"}'] = 0,
    })
  end)

  case("a client that leaves during the dial counts it as cancelled", function(t)
    local hole = t:blackhole()
    local p = start(t, 1, 'ps.listen { name = "l", bind = "127.0.0.1:0", to = %q }', hole.address)
    local client = t:connect(p.addresses[2])
    expect(t, p, { ['penstock_connections{listener="l"}'] = 1 })
    client:reset()
    expect(t, p, {
      ['penstock_connections{listener="l"}'] = 0,
      ['penstock_dials_total{listener="l",result="cancelled"}'] = 1,
    })
  end)

  case("questions to the name servers count, answers of the cache do not", function(t)
    local server = t:listen()
    local names = dns.start(t, { "--host-record=a.test,127.0.0.1,300" })
    local p = t:penstock { "--resolver", names.address, "run", write(t, [[
      ps.listen { name = "a", bind = "127.0.0.1:0", to = "a.test:%d" }
      ps.listen { name = "none", bind = "127.0.0.1:0", to = "none.test:%d" }
    ]], server.port, server.port) }
    for _ = 1, 3 do t:pair(p.addresses[2], server) end
    local before = page(t, p)
    local found = value(before, 'penstock_dns_queries_total{result="found"}')
    local missing = value(before, 'penstock_dns_queries_total{result="missing"}')
    assert.equal(1, found)
    t:connect(p.addresses[3]):read_all()
    local after = page(t, p)
    assert.equal(found, value(after, 'penstock_dns_queries_total{result="found"}'))
    assert.truthy(value(after, 'penstock_dns_queries_total{result="missing"}') > missing)
  end)

  case("TLS handshakes count by how they end", function(t)
    local server = t:listen()
    local cert = tls.certificate(t:folder(), "a.lab")
    local p = start(t, 1, [[
      local tls = { cert = %q, key = %q }
      ps.listen { name = "l", bind = "127.0.0.1:0", to = %q, tls = tls }
      ps.listen { name = "few", bind = "127.0.0.1:0", to = %q, tls = tls, limits = { handshakes = 1 } }
      ps.listen { name = "brief", bind = "127.0.0.1:0", to = %q, tls = tls, timeouts = { handshake = 0.05 } }
    ]], cert.cert, cert.key, server.address, server.address, server.address)
    local first = tls.client(t:connect(p.addresses[2])):handshake()
    t:accept(server):send "x"
    first:expect "x" -- and with it the ticket
    local again = tls.client(t:connect(p.addresses[2]), { session = first:session() }):handshake()
    assert.is_true(again:is_resumed())
    local plain = t:connect(p.addresses[2])
    plain:send "this is no ClientHello\n"
    plain:read_all()
    t:connect(p.addresses[3]) -- says nothing
    expect(t, p, { ['penstock_connections{listener="few"}'] = 1 })
    t:connect(p.addresses[3]):expect_reset()
    t:connect(p.addresses[4]):expect_reset()
    expect(t, p, {
      ['penstock_tls_handshakes_total{listener="l",result="ok",resumed="false"}'] = 1,
      ['penstock_tls_handshakes_total{listener="l",result="ok",resumed="true"}'] = 1,
      ['penstock_tls_handshakes_total{listener="l",result="failed",resumed="false"}'] = 1,
      ['penstock_tls_handshake_seconds_count{listener="l"}'] = 2,
      ['penstock_tls_handshakes_total{listener="few",result="limit",resumed="false"}'] = 1,
      ['penstock_tls_handshakes_total{listener="brief",result="timeout",resumed="false"}'] = 1,
      ['penstock_tls_handshake_seconds_count{listener="brief"}'] = 0,
    })
  end)

  case("tell until when the certificates in force are valid, and a reload tells of new ones", function(t)
    local shown, other = tls.certificate(t:folder(), "a.lab"), tls.certificate(t:folder(), "b.lab", { days = 20 })
    local p = start(t, 1, [[
      ps.listen { name = "l", bind = { "127.0.0.1:0", "127.0.0.1:0" }, tls = { cert = %q, key = %q,
        sni = { ["b.lab"] = { cert = %q, key = %q } } }, to = "127.0.0.1:1" }
    ]], shown.cert, shown.key, other.cert, other.key)
    local function expiry(certificate) return expiry_of("l", "client", certificate.cert) end
    local before = end_of(shown)
    local text = expect(t, p, { [expiry(shown)] = before, [expiry(other)] = end_of(other) })
    assert.equal(2, select(2, text:gsub("\npenstock_tls_certificate_expiry_timestamp_seconds{", "")))
    tls.certificate(t:folder(), "a.lab", { days = 90 })
    sys.write_file(other.cert, "broken")
    t:expect_error "b_lab.pem"
    reload(p, "version 1 stays in force")
    assert.equal(before, value(page(t, p), expiry(shown)))
    tls.certificate(t:folder(), "b.lab", { days = 60 })
    reload(p)
    assert.is_true(end_of(shown) > before)
    expect(t, p, { [expiry(shown)] = end_of(shown), [expiry(other)] = end_of(other) })
    write(t, "")
    reload(p)
    assert.is_nil(page(t, p):match "\npenstock_tls_certificate_expiry_timestamp_seconds{")
  end)

  case("tell until when the certificate that upstreams are shown is valid", function(t)
    local ours = tls.certificate(t:folder(), "me.lab", { days = 40 })
    local p, at = admin.penstock(t, { "--tls-dial-cert", ours.cert, "--tls-dial-key", ours.key, "127.0.0.1:0",
      "tls://127.0.0.1:1,tls://127.0.0.1:2" })
    local _, text = admin.ask(t, at, "/metrics")
    assert.equal(end_of(ours), value(text, expiry_of(p.address, "upstream", ours.cert)))
  end)

  case("a limit that refuses clients counts each", function(t)
    local server = t:listen()
    local p = start(t, 1, [[
      ps.listen { name = "l", bind = "127.0.0.1:0", to = %q, limits = { per_ip = 1 } }
    ]], server.address)
    t:pair(p.addresses[2], server)
    for _ = 1, 2 do t:connect(p.addresses[2]):read_all() end
    expect(t, p, { ['penstock_limited_total{listener="l"}'] = 2, ['penstock_connections{listener="l"}'] = 1 })
  end)

  case("hooks count calls, errors and time in Lua, over all workers", function(t)
    local p = start(t, 2, [[
      ps.listen { name = "l", bind = "127.0.0.1:0", policy = {
        accept = function(conn) ps.sleep(0.001) if conn.seq %% 2 == 0 then error "even" end return false end,
        close = function() local x = 0 for i = 1, 10000 do x = x + i end end } }
    ]])
    t:expect_error "even"
    for _ = 1, 20 do t:connect(p.addresses[2]):read_all() end
    local text = expect(t, p, {
      ['penstock_hook_calls_total{hook="accept"}'] = 20,
      ['penstock_hook_errors_total{hook="accept"}'] = 10,
      ['penstock_hook_calls_total{hook="close"}'] = 20,
      ['penstock_hook_errors_total{hook="close"}'] = 0,
      ['penstock_connections_total{listener="l",reason="script"}'] = 10,
      ['penstock_connections_total{listener="l",reason="denied"}'] = 10,
    })
    assert.truthy(value(text, 'penstock_hook_seconds_total{hook="close"}') > 0)
    assert.truthy(value(text, 'penstock_lua_heap_bytes{worker="0"}') > 100000)
    assert.truthy(value(text, 'penstock_lua_heap_bytes{worker="1"}') > 100000)
  end)

  case("coroutines are those that wait, and up to 256 for the next call; a replaced version's are gone", function(t)
    local p = start(t, 1, [[
      ps.listen { name = "l", bind = "127.0.0.1:0", policy = { serve = function(_, client) client:read() end } }
    ]])
    local function until_coroutines(least, most)
      local n
      local found = sys.wait_until(function()
        n = value(page(t, p), 'penstock_lua_coroutines{worker="0"}')
        return n >= least and n <= most
      end)
      assert(found, ("%s coroutines, not %d to %d"):format(n, least, most))
    end
    until_coroutines(1, 9) -- the page's own at least
    local clients = {}
    for i = 1, 300 do clients[i] = t:connect(p.addresses[2]) end
    until_coroutines(301, 309)
    for i = 1, 300 do clients[i]:finish():expect_eof() end
    until_coroutines(200, 257)
    p:signal "HUP"
    until_coroutines(1, 9)
  end)

  case("a hook that holds up its worker shows in the lag of the loop", function(t)
    local p = start(t, 1, [[
      ps.listen { name = "l", bind = "127.0.0.1:0", policy = { accept = function() while true do end end } }
    ]])
    t:expect_error "computed for more than 100 ms"
    assert.truthy(value(page(t, p), 'penstock_loop_lag_seconds{worker="0"}'))
    t:connect(p.addresses[2]):read_all()
    assert.truthy(value(page(t, p), 'penstock_loop_lag_seconds{worker="0"}') > 0.09)
  end)

  case("pools tell who is up and who is used", function(t)
    local one, two = t:listen(), t:listen()
    local p = start(t, 2, [[
      local pool = ps.pool { name = "web", servers = { %q, %q } }
      pool:server(%q):drain()
      ps.listen { name = "l", bind = "127.0.0.1:0", to = pool }
    ]], one.address, two.address, two.address)
    t:pair(p.addresses[2], one)
    local labels = '{pool="web",server="%s"}'
    expect(t, p, {
      ["penstock_pool_server_up" .. labels:format(one.address)] = 1,
      ["penstock_pool_server_up" .. labels:format(two.address)] = 0,
      ["penstock_pool_connections" .. labels:format(one.address)] = 1,
      ["penstock_pool_connections" .. labels:format(two.address)] = 0,
    })
  end)

  case("a reload keeps every number, and a listener that comes again goes on counting", function(t)
    local server = t:listen()
    local with = 'ps.listen { name = "l", bind = "127.0.0.1:0", to = %q }'
    local p = start(t, 2, with, server.address)
    local old, old_upstream = t:pair(p.addresses[2], server)
    end_both(t:pair(p.addresses[2], server))
    write(t, "")
    reload(p)
    expect(t, p, {
      ['penstock_connections{listener="l"}'] = 1,
      ['penstock_connections_total{listener="l",reason="eof"}'] = 1,
      ['penstock_reloads_total{result="ok"}'] = 1,
    })
    end_both(old, old_upstream)
    write(t, "no Lua")
    t:expect_error "stays in force"
    reload(p, "stays in force")
    local from = #p.err + 1
    write(t, with, server.address)
    reload(p)
    end_both(t:pair(p.err:match("listening on (%S+)", from), server))
    expect(t, p, {
      ['penstock_connections{listener="l"}'] = 0,
      ['penstock_connections_total{listener="l",reason="eof"}'] = 3,
      ['penstock_reloads_total{result="ok"}'] = 2,
      ['penstock_reloads_total{result="failed"}'] = 1,
    })
  end)

  case("a listener that a reload gives another name counts under that", function(t)
    local server = t:listen()
    local text = 'ps.listen { name = %q, bind = "127.0.0.1:0", to = %q }'
    local p = start(t, 1, text, "before", server.address)
    local old, old_upstream = t:pair(p.addresses[2], server)
    write(t, text, "after", server.address)
    reload(p)
    end_both(t:pair(p.addresses[2], server))
    end_both(old, old_upstream)
    expect(t, p, {
      ['penstock_connections_total{listener="before",reason="eof"}'] = 1,
      ['penstock_connections_total{listener="after",reason="eof"}'] = 1,
    })
  end)

  case("the process tells its version, start and descriptors", function(t)
    local server = t:listen()
    local before = os.time()
    local p = start(t, 1, 'ps.listen { name = "l", bind = "127.0.0.1:0", to = %q }', server.address)
    local text = page(t, p)
    assert.truthy(text:find('\npenstock_build_info{version="%d+%.%d+%.%d+"} 1\n'))
    local started = value(text, "process_start_time_seconds")
    assert.truthy(started >= before and started < os.time() + 1)
    local open = value(text, "penstock_open_descriptors")
    for _ = 1, 50 do t:pair(p.addresses[2], server) end
    local now = value(page(t, p), "penstock_open_descriptors")
    assert.truthy(now >= open + 100 and now < value(text, "penstock_max_descriptors"))
  end)

  case("a policy cannot take a name of penstock's own", function(t)
    local p = start(t, 1, [[
      for _, name in ipairs { "penstock_connections", "process_start_time_seconds" } do
        local ok, why = pcall(ps.gauge, name)
        assert(not ok and why:find("penstock's own", 1, true), why)
      end
    ]])
    assert.truthy(value(page(t, p), 'penstock_connections{listener="page"}'))
  end)

  peers.case_with("promtool", "promtool has nothing to object to", function(t)
    local server = t:listen()
    local p = start(t, 2, [[
      ps.listen { name = "l", bind = "127.0.0.1:0", to = ps.pool { name = "web", servers = { %q } } }
    ]], server.address)
    end_both(t:pair(p.addresses[2], server))
    local file = t:file("page", page(t, p))
    peers.run(t, { "sh", "-c", "promtool check metrics <" .. file })
  end)
end)
