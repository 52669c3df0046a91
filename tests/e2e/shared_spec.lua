-- What all workers share: stores, buckets, metrics. Totals add up whatever worker a connection comes to, and limits
-- hold over all of them.
local e2e = require "tests.e2e.support.case"
local case, case_in_modes, bulk, sys = e2e.case, e2e.case_in_modes, e2e.bulk, e2e.sys

local KB = 1024

-- penstock with a policy of this text and a listener behind it. `workers` defaults to 4.
local function start(t, text, workers, more)
  local server = t:listen()
  local args = { "--workers", workers or 4, "-p", t:file("policy.lua", 'local ps = require "penstock"\n' .. text) }
  for _, word in ipairs(more or {}) do args[#args + 1] = word end
  args[#args + 1] = "127.0.0.1:0"
  args[#args + 1] = server.address
  return t:penstock(args), server
end

-- Runs Lua text once, in an accept hook of one connection, and demands that it raised nothing.
local function run_in_hook(t, text)
  local hook = "return { accept = function(conn)\n%s\n conn:tag('done', true) return false end }"
  local p = start(t, hook:format(text), 1)
  t:connect(p):expect_eof()
  p:expect_end { reason = "denied", done = "true" }
end

-- The number on the line of ps.metrics() that begins with `series`, in any log line.
local function metric(p, series)
  local found
  for value in p.err:gmatch("%f[%w]" .. series:gsub("%p", "%%%0") .. " (%S+)") do found = value end
  return tonumber(found)
end

describe("ps.store:", function()
  case("a count in accept is the number of connections, over all workers", function(t)
    local p = start(t, [[
      local store = ps.store("seen", { items = 10 })
      return { accept = function(conn)
        conn:tag("n", store:incr("connections", 1, 0))
        return false
      end }]])
    for _ = 1, 300 do t:connect(p) end
    p:access(300)
    local seen = {}
    for _, line in ipairs(p:access_lines()) do seen[tonumber(line.n)] = true end
    assert.equal(300, #seen)
    assert.is_nil(seen[301])
  end)

  case("the first to add wins, whichever worker it is on", function(t)
    local p = start(t, [[
      local store = ps.store "first"
      return { accept = function(conn)
        local won, why = store:add("winner", conn.id)
        conn:tag("won", won and "yes" or why)
        return false
      end }]])
    for _ = 1, 100 do t:connect(p) end
    p:access(100)
    local counts = { yes = 0, exists = 0 }
    for _, line in ipairs(p:access_lines()) do counts[line.won] = counts[line.won] + 1 end
    assert.same({ yes = 1, exists = 99 }, counts)
  end)

  case("every call answers as documented", function(t)
    run_in_hook(t, [[
      local s = ps.store("calls", { items = 100 })
      local function same(want, ...)
        local got, n = { ... }, select("#", ...)
        assert(n == #want, n .. " results")
        for i = 1, n do assert(got[i] == want[i], tostring(got[i]) .. " is not " .. tostring(want[i])) end
      end
      local function failed(word, value, err) assert(value == nil and err == word, tostring(err)) end
      assert(s:get "k" == nil)
      same({ true }, s:set("k", "text"))
      same({ "text" }, s:get "k")
      same({ true }, s:set("k", false))
      same({ false }, s:get "k")
      same({ true }, s:set("k", nil))
      assert(s:get "k" == nil)
      same({ true }, s:set("bin\0ary", "a\0b"))
      same({ "a\0b" }, s:get "bin\0ary")
      local long = ("x"):rep(2 ^ 20)
      same({ true }, s:set("long", long))
      same({ long }, s:get "long")
      failed("too_long", s:set("long", long .. "x"))
      failed("too_long", s:get(("k"):rep(1025)))
      failed("not_found", s:incr "n")
      same({ 11 }, s:incr("n", 1, 10))
      same({ 12 }, s:incr "n")
      same({ 11.5 }, s:incr("n", -0.5))
      failed("not_a_number", s:incr "long")
      same({ true }, s:add("a", 1))
      failed("exists", s:add("a", 2))
      failed("changed", s:cas("a", 2, 3))
      same({ true }, s:cas("a", 1, 3))
      failed("changed", s:cas("a", nil, 3))
      same({ true }, s:cas("a", 3, nil))
      same({ true }, s:cas("a", nil, 4))
      same({ true }, s:del "a")
      same({ false }, s:del "a")
      same({ math.huge }, s:ttl "n")
      failed("not_found", s:ttl "a")
      same({ true }, s:set("t", 1, 100))
      assert(s:ttl "t" > 0 and s:ttl "t" <= 100)
      same({ true }, s:set(7, "number"))
      same({ "number" }, s:get "7")
      assert(s:len() == 5, s:len())
      assert(s:evicted() == 0)
      assert(ps.store("calls"):get "n" == 11.5)                      -- the same store by its name
      assert(ps.store("calls", { items = 2 }):len() == 2 and s:evicted() == 3)]])
  end)

  case("an item is gone after its time", function(t)
    run_in_hook(t, [[
      local s = ps.store "times"
      s:set("k", 1, "50ms")
      assert(s:get "k" == 1)
      ps.sleep(0.06)
      assert(s:get "k" == nil)]])
  end)

  case("misused calls show the right one", function(t)
    run_in_hook(t, [[
      local s = ps.store "misused"
      local function wrong(part, f, ...)
        local ok, err = pcall(f, ...)
        assert(not ok and err:find(part, 1, true), tostring(err))
      end
      wrong("store:get(key)", s.get, "k")
      wrong("store:get(key)", s.get, s)
      wrong("store:set(key, value, ttl): a value is", s.set, s, "k", {})
      wrong("store:set(key, value, ttl): ttl:", s.set, s, "k", 1, "soon")
      wrong("store:add(key, value, ttl)", s.add, s, "k")
      wrong("store:incr(key, n, init, ttl): n", s.incr, s, "k", "1")
      wrong("did you mean \"items\"", ps.store, "misused", { item = 1 })
      wrong("items is a whole number", ps.store, "misused", { items = 0 })
      wrong("bytes is a size", ps.store, "misused", { bytes = "1K" })
      wrong("a word of at most 64", ps.store, "mis used")
      wrong("policy.lua:", function() ps.store "" end)
      assert(getmetatable(s) == "ps.store")]])
  end)
end)

describe("ps.bucket:", function()
  case("a burst is a burst over all workers", function(t)
    local p = start(t, [[
      local conns = ps.bucket("conns", { rate = 0.001, burst = 20 })
      return { accept = function(conn)
        local ok, wait = conns:take(conn.client.key)
        conn:tag("ok", ok)
        conn:tag("wait", wait)
        return false
      end }]])
    for _ = 1, 100 do t:connect(p) end
    for _ = 1, 20 do t:connect(p, { from = "127.0.0.2:0" }) end -- has its own
    p:access(120)
    local passed = {}
    for _, line in ipairs(p:access_lines()) do
      local ip = line.client:match "^[%d.]+"
      passed[ip] = (passed[ip] or 0) + (line.ok == "true" and 1 or 0)
      if line.ok == "false" then assert.is_true(tonumber(line.wait) > 0 and tonumber(line.wait) <= 1000) end
    end
    assert.same({ ["127.0.0.1"] = 20, ["127.0.0.2"] = 20 }, passed)
  end)

  case("who waits is served in order, never faster than the rate", function(t)
    local p = start(t, [[
      local turns = ps.bucket("turns", { rate = 50, burst = 1 })
      return { accept = function(conn)
        assert(turns:wait("all"))
        return false
      end }]])
    local begin = sys.now()
    for _ = 1, 21 do t:connect(p) end
    p:access(21)
    assert.is_true(sys.now() - begin >= 20 / 50 - 0.002)
    for _, line in ipairs(p:access_lines()) do assert.equal("denied", line.reason) end
  end)

  case("every call answers as documented", function(t)
    run_in_hook(t, [[
      local b = ps.bucket("calls", { rate = 0.5, burst = 2 })
      assert(b:take "k" == true)
      assert(b:take("k", 1) == true)
      local ok, wait = b:take("k")
      assert(ok == false and wait > 0 and wait <= 2)
      ok, wait = b:take("k", 3)
      assert(ok == false and wait == math.huge)
      assert(b:take("k", 0) == true)
      local value, err = b:take(("k"):rep(1025))
      assert(value == nil and err == "too_long")
      value, err = b:wait("k", 1, 0.5)
      assert(value == nil and err == "timeout")
      assert(b:wait("fresh", 2, 0) == true)
      b = ps.bucket("fast", { rate = "1K", burst = "2K" })
      assert(b:take("k", 2048))
      assert(b:wait("k", 10, 1) == true)
      assert(tostring(b:key "k"):find "bucket:key")
      assert(b:forgotten() == 0)]])
  end)

  case("a wait that is cancelled gives its turn back", function(t)
    local p = start(t, [[
      local turns = ps.bucket("turns", { rate = 0.01, burst = 1 })
      turns:take "all"
      return {
        accept = function(conn)
          conn.log.info "waits"
          turns:wait "all"
        end,
        close = function(conn)
          local _, wait = turns:take "all"                 -- of the next turn, not of the one after it
          conn:tag("wait", wait)
        end,
      }]], 1)
    local client = t:connect(p)
    p:log "waits"
    client:reset()
    local wait = tonumber(p:expect_end({ reason = "reset" }).wait)
    assert.is_true(wait > 0 and wait <= 100)
  end)

  case("misused calls show the right one", function(t)
    run_in_hook(t, [[
      local b = ps.bucket("misused", { rate = 1 })
      local function wrong(part, f, ...)
        local ok, err = pcall(f, ...)
        assert(not ok and err:find(part, 1, true), tostring(err))
      end
      wrong("ps.bucket(name, { rate = 5, burst = 20 })", ps.bucket, "b")
      wrong("rate is tokens a second", ps.bucket, "b", { burst = 1 })
      wrong("rate is tokens a second", ps.bucket, "b", { rate = "fast" })
      wrong("burst is", ps.bucket, "b", { rate = 1, burst = 0.5 })
      wrong("keys is", ps.bucket, "b", { rate = 1, keys = 1.5 })
      wrong("bucket:take(key, n)", b.take, "k")
      wrong("bucket:take(key, n)", b.take, b, "k", -1)
      wrong("bucket:wait(key, n, max)", b.wait, b)
      wrong("bucket:wait(key, n, max)", b.wait, b, "k", "x")
      wrong("bucket:wait(key, n, max)", b.wait, b, "k", 1, "soon")
      wrong("bucket:wait(key, n, max)", b.wait, {}, "k")
      wrong("bucket:key(key)", b.key, b)
      wrong("bucket:key(key)", conn.limit, conn, { up = b })
      assert(getmetatable(b:key "k") == "bucket:key")]])
  end)

  local function bandwidth(t, mode, workers)
    local RATE, BURST, BYTES = 512 * KB, 64 * KB, 192 * KB
    local p, server = start(t, [[
      local bytes = ps.bucket("bytes", { rate = "512K", burst = "64K" })
      return { accept = function(conn) conn:limit { down = bytes:key(conn.client.key) } end }]],
      workers, { "--mode", mode })
    local begin, clients, transfers = sys.now(), {}, {}
    for i = 1, 2 do
      local client, upstream = t:pair(p, server)
      local receive_now = client.receive_now
      clients[i] = client
      client.receive_now = function(self, max)
        local memory, n = receive_now(self, max)
        local sum, allowed = clients[1].got + (clients[2] and clients[2].got or 0), BURST + RATE * (sys.now() - begin)
        if memory and sum > allowed then error(("%d bytes where %d are allowed"):format(sum, allowed), 0) end
        return memory, n
      end
      transfers[i] = { from = upstream, to = client, bytes = BYTES, offset = i * 777, finish = true }
    end
    bulk.run(transfers)
    assert.is_true(sys.now() - begin >= (2 * BYTES - BURST) / RATE)
  end

  case_in_modes("two connections of a client share a bucket's bandwidth, on one worker", function(t, mode)
    bandwidth(t, mode, 1)
  end)

  case_in_modes("two connections of a client share a bucket's bandwidth, on any workers", function(t, mode)
    bandwidth(t, mode, 4)
  end)

  case("a bucket's bandwidth may be left again", function(t)
    local p, server = start(t, [[
      local bytes = ps.bucket("bytes", { rate = 1, burst = 10 })
      return {
        accept = function(conn) conn:limit { up = bytes:key "all" } end,
        data = function(conn, dir) if dir == "down" then conn:limit { up = 0 } end end,
      }]], 1)
    local client, upstream = t:pair(p, server)
    client:send(("x"):rep(100000))
    upstream:expect(("x"):rep(10))
    upstream:send "go"
    client:expect "go"
    upstream:expect(("x"):rep(99990))
  end)
end)

describe("metrics:", function()
  case("what all workers count is one exposition", function(t)
    local p = start(t, [[
      local served = ps.counter("served_total", { "listener", "even" }, { help = "Connections." })
      local size = ps.histogram("size", nil, { buckets = { 10, 100 } })
      local open = ps.gauge "open"
      return {
        accept = function(conn)
          served:inc(1, conn.listener, conn.seq % 2 == 0)
          size:observe(conn.seq)
          open:inc()
          return false
        end,
        close = function(conn)
          open:inc(-1)
          if conn.seq == 201 then print(ps.metrics()) end
        end,
      }]])
    for _ = 1, 200 do t:connect(p):expect_eof() end
    p:access(200)
    t:connect(p):expect_eof()
    p:access(201)
    local name = p.address
    assert.equal(100, metric(p, ('served_total{listener="%s",even="true"}'):format(name)))
    assert.equal(101, metric(p, ('served_total{listener="%s",even="false"}'):format(name)))
    assert.equal(10, metric(p, 'size_bucket{le="10"}'))
    assert.equal(100, metric(p, 'size_bucket{le="100"}'))
    assert.equal(201, metric(p, 'size_bucket{le="+Inf"}'))
    assert.equal(201, metric(p, "size_count"))
    assert.equal(0, metric(p, "open"))
    assert.truthy(p.err:find("# HELP served_total Connections.", 1, true))
    assert.truthy(p.err:find("# TYPE size histogram", 1, true))
  end)

  case("every call answers as documented, and misused ones show the right one", function(t)
    run_in_hook(t, [[
      local function wrong(part, f, ...)
        local ok, err = pcall(f, ...)
        assert(not ok and err:find(part, 1, true), tostring(err))
      end
      local c = ps.counter("c_total", { "a", "b" })
      local g = ps.gauge "g"
      local h = ps.histogram("h_seconds", { "a" })
      c:inc(nil, "x", 1)
      c:inc(2.5, "x", 1)
      g:set(7)
      g:inc(-10)
      h:observe(0.3, true)
      local text = ps.metrics()
      for _, line in ipairs { 'c_total{a="x",b="1"} 3.5\n', "g -3\n", 'h_seconds_bucket{a="true",le="0.25"} 0\n',
        'h_seconds_bucket{a="true",le="0.5"} 1\n', 'h_seconds_sum{a="true"} 0.3\n' } do
        assert(text:find(line, 1, true), text)
      end
      wrong("counter:inc(n, a, b): each label", c.inc, c, 1, "x")
      wrong("counter:inc(n, a, b): these are more", c.inc, c, 1, "x", "y", "z")
      wrong("only goes up", c.inc, c, -1, "x", "y")
      wrong("call it with a colon: gauge:set(value)", g.set, 1)
      wrong("gauge:set(value)", g.set, g)
      wrong("call it with a colon: counter:inc(n)", c.inc, g, 1)
      wrong("histogram:observe(value, a)", h.observe, h, "1", "x")
      wrong("is not a metric's name", ps.counter, "a-b")
      wrong("is not a label's name", ps.counter, "a", { "b-c" })
      wrong("a list of names", ps.counter, "a", "label")
      wrong("did you mean \"help\"", ps.counter, "a", nil, { hepl = "x" })
      wrong("c_total is a counter already", ps.gauge, "c_total", { "a", "b" })
      wrong("other labels", ps.counter, "c_total", { "a" })
      wrong("ascending", ps.histogram, "x", nil, { buckets = { 2, 1 } })
      wrong("policy.lua:", function() ps.counter "1" end)]])
  end)
end)
