-- Libraries written for OpenResty, as Debian ships them, run inside hooks: `scripts/deps test` unpacks them into
-- build/third-party (they are never installed: they would pull in an nginx and another LuaJIT).
local lfs = require "lfs"
local e2e = require "tests.e2e.support.case"
local peers = require "tests.e2e.support.peers"
local case = e2e.case

local third_party = lfs.currentdir() .. "/build/third-party/usr"

local function need(file)
  if not lfs.attributes(third_party .. file) then
    error(third_party .. file .. " is missing: run scripts/deps test", 0)
  end
end

-- Starts redis-server and penstock with a policy of this text, in which REDIS is an opened client of it.
local function start(t, text, options)
  need "/share/lua/5.1/nginx/redis.lua"
  options = options or {}
  local port = peers.free_port(t)
  local argv = { "redis-server", "--port", tostring(port), "--save", "", "--dir", t:folder() }
  for _, word in ipairs(options.redis or {}) do argv[#argv + 1] = word end
  local redis = t:spawn(argv)
  peers.wait_for_listener(t, "127.0.0.1:" .. port, redis)
  local server = t:listen()
  local policy = t:file("policy.lua", ([[
    local ps = require "penstock"
    require "penstock.ngx"
    local redis = require "nginx.redis"
    local PORT = %d
    local function open(timeout_ms)
      local r = redis:new()
      r:set_timeout(timeout_ms or 5000)
      assert(r:connect("127.0.0.1", PORT))
      return r
    end
  ]]):format(port) .. text)
  local args = { "-p", policy }
  for _, word in ipairs(options.args or {}) do args[#args + 1] = word end
  args[#args + 1] = "127.0.0.1:0"
  args[#args + 1] = server.address
  local p = t:penstock(args, { env = { LUA_PATH = third_party .. "/share/lua/5.1/?.lua;;" } })
  return p, server, redis
end

local function redis_case(name, run) peers.case_with("redis-server", name, run) end

-- What the policy tags as `got` at the first connection's end.
local function expect_got(t, p, server, want)
  local client, upstream = t:expect_echo(p, server)
  client:close()
  upstream:close()
  assert.equal(want, p:access(1).got)
end

describe("lua-resty-redis:", function()
  redis_case("set, get and a missing key in the connect hook", function(t)
    local p, server = start(t, [[
      return { connect = function(conn)
        local r = open()
        assert(r:set("key", "va\r\nlue") == "OK")
        conn:tag("got", (r:get("key"):gsub("%s", "_")) .. " " .. tostring(r:get("none") == ngx.null))
        assert(r:close() == 1)
      end }]])
    expect_got(t, p, server, "va__lue true")
  end)

  redis_case("pipelines, transactions and hashes in the accept hook", function(t)
    local p, server = start(t, [[
      return { accept = function(conn)
        local r = open()
        r:init_pipeline()
        for i = 1, 100 do r:rpush("list", ("x"):rep(1000) .. i) end
        r:llen("list")
        r:get("list") -- of the wrong type
        local results = assert(r:commit_pipeline())
        assert(results[101] == 100 and results[102][1] == false and results[102][2]:find "WRONGTYPE")
        assert(r:multi() == "OK")
        assert(r:incr("n") == "QUEUED")
        assert(r:incr("n") == "QUEUED")
        local done = assert(r:exec())
        assert(r:hmset("hash", { a = "1", b = "2" }) == "OK")
        local hash = r:array_to_hash(r:hgetall("hash"))
        conn:tag("got", ("%d %d %s %s"):format(done[1], done[2], hash.a, hash.b))
      end }]])
    expect_got(t, p, server, "1 2 1 2")
  end)

  redis_case("a subscription in a filter: a message that a data hook's connection publishes", function(t)
    local p, server = start(t, [[
      return {
        filter = { up = function(conn, rd, wr)
          local word = rd:line()
          if word == "listen" then
            local r = open(100)
            local res = assert(r:subscribe("news"))
            assert(res[1] == "subscribe")
            conn.log.info "SUBSCRIBED"
            while true do -- timeouts in between lose nothing
              local message, why = r:read_reply()
              if message then
                wr:write(message[1], " ", message[3], "\n")
                assert(r:unsubscribe("news"))
                break
              end
              assert(why == "timeout", why)
            end
          elseif word == "say" then
            local r = open()
            local text = rd:line()
            wr:write(assert(r:publish("news", text)), "\n")
          end
        end } }]])
    local listener, listener_up = t:pair(p, server)
    listener:send "listen\n"
    p:log "(SUBSCRIBED)"
    local speaker, speaker_up = t:pair(p, server)
    speaker:send "say\nhello there\n"
    speaker_up:expect "1\n"
    listener_up:expect "message hello there\n"
  end)

  redis_case("a connection that is kept alive is used again, by another hook, with its login", function(t)
    local p, server = start(t, [[
      return {
        connect = function(conn)
          local r = open()
          assert(r:auth("secret") == "OK")
          conn.ctx.id = r:client("id")
          conn.ctx.reused = r:get_reused_times()
          assert(r:set_keepalive(60000, 10) == 1)
          local res, err = r:get("key") -- it is given back
          assert(res == nil and err == "closed", err)
        end,
        close = function(conn)
          local r = open()
          conn.log.info("SAME %s %d %d", tostring(r:client("id") == conn.ctx.id), conn.ctx.reused, r:get_reused_times())
          assert(r:set_keepalive())
        end,
      }]], { redis = { "--requirepass", "secret" } })
    local client, upstream = t:expect_echo(p, server)
    client:close()
    upstream:close()
    p:log "SAME (true 0 1)"
  end)

  redis_case("a wrong password and a command without login are Redis' errors, not ours", function(t)
    local p, server = start(t, [[
      return { connect = function(conn)
        local r = open()
        local ok, err = r:auth("wrong")
        assert(ok == false and err:find "WRONGPASS", err)
        local res, why = r:get("key")
        conn:tag("got", tostring(res) .. " " .. why:match "%u+")
      end }]], { redis = { "--requirepass", "secret" } })
    expect_got(t, p, server, "false NOAUTH")
  end)

  redis_case("a server that is not there, one that dies and one that stalls are told apart", function(t)
    local dead = t:refusing()
    local p, server, redis = start(t, ([[
      return { connect = function(conn)
        local r = redis:new()
        local ok, refused = r:connect("127.0.0.1", %d)
        assert(not ok and refused == "refused", refused)
        r = open(200)
        local res, stalled = r:blpop("nothing", 0)
        assert(res == nil and stalled == "timeout", stalled)
        r = open()
        local reply, gone
        ngx.timer.at(0, function() assert(open():client("kill", "type", "normal", "skipme", "yes")) end)
        reply, gone = r:blpop("nothing", 0)
        conn:tag("got", ("%%s %%s %%s"):format(refused, stalled, gone))
        assert(reply == nil and r:get("x") == nil)
      end }]]):format(dead.port))
    expect_got(t, p, server, "refused timeout closed")
    assert.is_nil(redis.status)
  end)
end)

describe("penstock.ngx:", function()
  -- A policy that tags what `body` returns in the connect hook.
  local function start_plain(t, body)
    local server = t:listen()
    local policy = t:file("policy.lua", ([[
      local ps = require "penstock"
      assert(ngx == nil, "the global is there before it is asked for")
      local ngx = require "penstock.ngx"
      assert(ngx == _G.ngx)
      return { connect = function(conn)
        local function text(...)
          local parts = { ... }
          for i = 1, select("#", ...) do parts[i] = tostring(parts[i]) end
          return table.concat(parts, " ")
        end
        conn:tag("got", text((function() %s end)()))
      end }]]):format(body))
    return t:penstock { "-p", policy, "127.0.0.1:0", server.address }, server
  end

  case("the first thread that ends is waited for; errors are results; a killed one does not go on", function(t)
    local p, server = start_plain(t, [[
      local log = {}
      local slow = ngx.thread.spawn(function() ngx.sleep(3600) log[1] = "woken" end)
      local fast = ngx.thread.spawn(function(x) ngx.sleep(0.01) return x, "fast" end, 1)
      local ok, one, fast_result = ngx.thread.wait(slow, fast)
      local again, why = ngx.thread.wait(fast)
      assert(again == nil and why == "already waited or killed")
      assert(ngx.thread.kill(slow) == 1 and ngx.thread.kill(slow) == nil)
      local bad = ngx.thread.spawn(function() error("boom", 0) end)
      local failed, err = ngx.thread.wait(bad)
      return ok, one, fast_result, failed, err, #log]])
    expect_got(t, p, server, "true 1 fast false boom 0")
  end)

  case("shared dicts answer as OpenResty's do", function(t)
    local p, server = start_plain(t, [[
      local d = ngx.shared.counts
      assert(d == ngx.shared.counts and ps.store("counts"):len() == 0)
      assert(d:get("k") == nil and d:set("k", "v") == true and d:get("k") == "v")
      local ok, why = d:add("k", 1)
      assert(ok == false and why == "exists")
      ok, why = d:incr("n", 1)
      assert(ok == nil and why == "not found")
      assert(d:incr("n", 2, 40) == 42 and d:get("n") == 42)
      ok, why = d:incr("k", 1)
      assert(ok == nil and why == "not a number")
      assert(d:ttl("k") == 0 and d:set("t", true, 100) and d:ttl("t") > 99)
      ok, why = d:ttl("none")
      assert(ok == nil and why == "not found")
      ok, why = d:set(nil, 1)
      assert(ok == nil and why == "nil key")
      ok, why = d:set("k", {})
      assert(ok == nil and why == "bad value type")
      assert(not pcall(d.set, d, "k", 1, 0, 7))
      assert(d:delete("k") and d:get("k") == nil)
      return ps.store("counts"):get("n")]])
    expect_got(t, p, server, "42")
  end)

  case("clock, context, log, worker and timer", function(t)
    local p, server = start_plain(t, [[
      local before = ngx.now()
      ngx.sleep(0.05)
      ngx.update_time()
      assert(ngx.now() - before >= 0.049 and ngx.now() - before < 60 and ngx.time() == math.floor(ngx.now()))
      assert(math.abs(ngx.time() - os.time()) < 60)
      ngx.ctx.mine = 1
      assert(conn.ctx.mine == 1)
      ngx.log(ngx.WARN, "WARNED ", nil, " ", true, 1)
      assert(not pcall(ngx.log, "text"))
      ngx.timer.at(0, function(premature, a)
        ngx.log(ngx.INFO, "TIMER ", premature, a, " ", (pcall(function() return ngx.ctx end)))
      end, "x")
      assert(ngx.re == nil and ngx.say == nil and ngx.worker.pid() > 0 and not ngx.worker.exiting())
      return ngx.worker.id(), type(ngx.null), tostring(ngx.null)]])
    expect_got(t, p, server, "0 userdata userdata: NULL")
    p:log "warn .*%[conn 1%] (WARNED nil true1)"
    p:log "info .*(TIMER falsex false)"
  end)
end)

describe("lua-resty-lrucache:", function()
  -- Its lists are made by ffi, which --unsafe-lua opens.
  local cache_policy = [[
    local lru = require "resty.lrucache"
    local cache = assert(lru.new(2))
    return { connect = function(conn)
      local n = (cache:get("n") or 0) + 1
      cache:set("n", n)
      if n < 2 then return end
      cache:set("brief", "x", 0.05)
      assert(cache:get("brief") == "x")
      ngx.sleep(0.1)
      local fresh, stale = cache:get("brief")
      assert(fresh == nil and stale == "x")
      cache:set("a", 1)
      cache:set("b", 2)
      conn:tag("got", ("%s %s %s %d"):format(n, tostring(cache:get("n")), cache:get("b"), cache:count()))
    end }]]

  redis_case("it keeps values between hooks, drops the oldest and lets times run out, with --unsafe-lua", function(t)
    local p, server = start(t, cache_policy, { args = { "--unsafe-lua" } })
    t:expect_echo(p, server)
    local client, upstream = t:expect_echo(p, server)
    client:close()
    upstream:close()
    assert.equal("2 nil 2 2", p:access(1).got)
  end)

  case("without --unsafe-lua it does not load, and the message says that ffi is missing", function(t)
    need "/share/lua/5.1/resty/lrucache.lua"
    local policy = t:file("policy.lua", 'require "penstock.ngx" require "resty.lrucache" return {}')
    local status, err = t:run({ "-p", policy, "127.0.0.1:0", "127.0.0.1:1" },
      { env = { LUA_PATH = third_party .. "/share/lua/5.1/?.lua;;" } })
    t.servers[1].status = status
    t:expect_error "module 'ffi' not found"
    assert.equal(2, status)
    assert.matches("module 'ffi' not found", err)
  end)
end)
