-- ps.pool: checks what a pool is made of, and the active checks of its servers. core.pool (core/script/lib_pool.c)
-- keeps their state, which all workers share, and chooses among them.
local check = require "penstock.check"
local nearest = require "penstock.nearest"

local error, format, ipairs, next, pcall, type = error, string.format, ipairs, next, pcall, type

local call = 'ps.pool{ name = "web", servers = { "10.0.0.1:80", "10.0.0.2:80" } }'
local algos = { "round_robin", "random", "least_conn", "hash" }
local pool_keys = { "name", "servers", "algo", "check", "eject" }
local server_keys = { "weight", "name", "proxy", "tlv", "via", "via_tls", "bind", "timeout", "tls" }
local check_keys = { "every", "fall", "rise", "timeout", "send", "expect" }
local eject_keys = { "fails", "time" }
local CHECK_TIMEOUT_MS, EJECT_MS, COUNT_MAX, WEIGHT_MAX = 5000, 30000, 1e6, 1e6

local function fail(...) error(format(...), 0) end

local function is_whole(n) return type(n) == "number" and n >= 1 and n <= COUNT_MAX and n % 1 == 0 end

local function is_word(name)
  return type(name) == "string" and name ~= "" and #name <= 64 and not name:find "[^%w_.:-]"
end

-- A table of options of ps.pool, without unknown keys.
local function group(what, value, keys)
  local ok, why = pcall(check.keys, value, what, keys, -1)
  if not ok then fail("%s", why) end
end

local function count(what, value, otherwise)
  if value == nil then return otherwise end
  if not is_whole(value) then fail("ps.pool: %s is a whole number, 1 or more", what) end
  return value
end

-- install(ps, core, time_ms)
return function(ps, core, time_ms)
  local pool, methods = core.pool, core.pool.methods
  local names = {}

  local function time(what, value, otherwise)
    if value == nil then return otherwise end
    local ok, ms = pcall(time_ms, value, "ps.pool: " .. what, -1)
    if not ok then fail("%s", ms) end
    if ms < 1 then fail("ps.pool: %s must be longer than 0", what) end
    return ms
  end

  -- ---- servers ----

  -- The destination in a server's table, which has also a name and a weight.
  local function spec_of(item, address)
    local spec = {}
    for key, value in next, item do spec[key] = value end
    spec.name, spec.weight, spec[1] = nil, nil, address
    return spec
  end

  local function describe(where, what)
    local ok, name, address = pcall(pool.describe, what)
    if not ok then fail("%s: %s", where, name) end
    if not name then fail("%s: %s", where, address) end
    return name, address
  end

  -- One item of `servers`, as core.pool.new() has it.
  local function server_of(item, where)
    if type(item) == "string" then item = { item } end
    if type(item) ~= "table" or type(item[1]) ~= "string" then
      fail('%s is no server; write "host:port" or { "host:port", weight = 2, name = "a" }', where)
    end
    local options = spec_of(item)
    options.name, options.weight = item.name, item.weight
    group(where, options, server_keys)
    local url = item[1]:find("://", 1, true) and item[1] or nil
    local name, address = describe(where, url or spec_of(item, item[1]))
    if url then describe(where, spec_of(item, address)) end
    if item.name ~= nil and not is_word(item.name) then
      fail("%s: the name is one word of at most 64 letters, digits, and _ . : -", where)
    end
    local weight = item.weight == nil and 1 or item.weight
    if type(weight) ~= "number" or not (weight > 0 and weight <= WEIGHT_MAX) then
      fail("%s: weight is a number above 0", where)
    end
    local spec = spec_of(item, address or item[1])
    return { name = item.name or name, address = name, weight = weight, url = url, spec = spec }
  end

  local function servers_of(items)
    if type(items) ~= "table" or #items == 0 then
      fail('ps.pool: servers is %s; write servers = { "10.0.0.1:80", "10.0.0.2:80" }',
        type(items) == "table" and "an empty list" or items == nil and "missing" or "a " .. type(items))
    end
    if #items > pool.SERVERS_MAX then fail("ps.pool: at most %d servers are in a pool", pool.SERVERS_MAX) end
    for key in next, items do
      if type(key) ~= "number" then fail("ps.pool: servers is a list; it has the key %s", tostring(key)) end
    end
    local list, taken = {}, {}
    for i = 1, #items do
      local server = server_of(items[i], format("ps.pool: servers[%d]", i))
      if taken[server.name] then
        fail('ps.pool: servers[%d] is "%s" once more; give it a name of its own: { "host:port", name = "b" }', i,
          server.name)
      end
      taken[server.name], list[i] = true, server
    end
    return list
  end

  -- ---- options ----

  local function algo_of(algo)
    if algo == nil then return algos[1] end
    for _, word in ipairs(algos) do
      if word == algo then return word end
    end
    local near = nearest(algo, algos)
    fail('ps.pool: algo %s is not known%s; it is "%s"', type(algo) == "string" and format('"%s"', algo) or
      "of type " .. type(algo), near and format(' (did you mean "%s"?)', near) or "", table.concat(algos, '", "'))
  end

  local function checks_of(options)
    if options == nil then return nil end
    group("ps.pool: check", options, check_keys)
    local checks = {
      every = time("check.every", options.every, 5000), fall = count("check.fall", options.fall, 2),
      rise = count("check.rise", options.rise, 1), send = options.send, expect = options.expect,
    }
    local most = checks.every < CHECK_TIMEOUT_MS and checks.every or CHECK_TIMEOUT_MS
    checks.timeout = time("check.timeout", options.timeout, most)
    for _, key in ipairs { "send", "expect" } do
      if checks[key] ~= nil and (type(checks[key]) ~= "string" or checks[key] == "") then
        fail('ps.pool: check.%s is a text: check = { send = "PING\\r\\n", expect = "+PONG" }', key)
      end
    end
    return checks
  end

  local function eject_of(options)
    if options == nil then return 0, 0 end
    group("ps.pool: eject", options, eject_keys)
    return count("eject.fails", options.fails, 3), time("eject.time", options.time, EJECT_MS)
  end

  -- ---- checks ----

  -- nil, or why the server is not well.
  local function talk(socket, checks)
    if checks.send then
      local ok, word = socket:write(checks.send)
      if ok then ok, word = socket:flush() end
      if not ok then return word end
    end
    if checks.expect then
      local answer, word = socket:exactly(#checks.expect)
      if not answer then return "no answer: " .. word end
      if answer ~= checks.expect then return "another answer than expected" end
    end
  end

  local function probe(server, checks)
    local why
    local ok, word, detail = ps.timeout(checks.timeout / 1000, function()
      local socket, a, b = ps.tcp.connect(pool.spec(server), { timeout = checks.timeout / 1000 })
      if not socket then return nil, a, b end
      why = talk(socket, checks)
      socket:close()
      return true
    end)
    if not ok then return detail and detail ~= word and format("%s (%s)", word, detail) or word end
    return why
  end

  local function check_server(name, server, checks)
    local why = probe(server, checks)
    if not pool.checked(server, why == nil, checks.fall, checks.rise) then return end
    if why then
      ps.log.warn("pool %s: %s is down: %s", name, server.name, why)
    else
      ps.log.info("pool %s: %s is up again", name, server.name)
    end
  end

  -- Each server has a start of its own, so that they are not all checked at once.
  local function start_checks(name, server, checks)
    ps.on_start(function()
      if core.worker ~= 0 then return end
      ps.after(ps.random() * checks.every / 1000, function()
        local function run() check_server(name, server, checks) end
        ps.every(checks.every / 1000, run)
        run()
      end)
    end)
  end

  -- A version before may have had checks, and nobody would find that a server is up again.
  local function forget_checks(server)
    ps.on_start(function() pool.checked(server, true, 1, 1) end)
  end

  -- ---- pools ----

  local function make(options)
    if not is_word(options.name) then
      fail('ps.pool: the name is %s; it is one word of at most 64 letters, digits, and _ . : -, such as name = "web"',
        options.name == nil and "missing" or "none")
    end
    if names[options.name] then fail('ps.pool: two pools are named "%s"', options.name) end
    local algo, list, checks = algo_of(options.algo), servers_of(options.servers), checks_of(options.check)
    local made, why = pool.new(options.name, algo, list, checks ~= nil, eject_of(options.eject))
    if not made then fail("ps.pool: %s", why) end
    names[options.name] = true
    for _, server in ipairs(pool.servers(made)) do
      if checks then
        start_checks(options.name, server, checks)
      else
        forget_checks(server)
      end
    end
    return made
  end

  -- ps.pool{ name =, servers =, algo =, check =, eject = } -> pool
  function ps.pool(options)
    check.keys(options, call, pool_keys, 2)
    if core.task.serves() then error("ps.pool: call it while the file loads, not in a hook", 2) end
    local ok, made = pcall(make, options)
    if not ok then error(made, 2) end
    return made
  end

  -- pool:each(key): iterates over the servers that may be used, the best first.
  function methods.each(self, key)
    local ok, list = pcall(pool.order, self, key)
    if not ok then error(list, 2) end
    local i = 0
    return function()
      i = i + 1
      return list[i]
    end
  end

  -- pool:servers() -> list of all servers, in the order in which they were given.
  function methods.servers(self)
    local list = {}
    for i, server in ipairs(pool.servers(self)) do list[i] = server end
    return list
  end

  -- pool:server(name or number) -> server, or nil when there is none.
  function methods.server(self, which)
    if type(which) ~= "string" and type(which) ~= "number" then
      error('pool:server("name") or pool:server(1): a name or a number is expected, got ' .. type(which), 2)
    end
    for i, server in ipairs(pool.servers(self)) do
      if which == i or which == server.name then return server end
    end
    return nil
  end
end
