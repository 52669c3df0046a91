-- ps.listen{} and ps.options{}: checks their form, makes one policy of many, and hands what they say to C, which reads
-- values as the command line does.
local check = require "penstock.check"
local cidr = require "penstock.cidr"
local compose = require "penstock.compose"
local nearest = require "penstock.nearest"
local getinfo = debug.getinfo -- policies do not have it

local listen_call = 'ps.listen{ bind = ":6379", to = "redis.internal:6379" }'

local listen_keys = {
  "name", "bind", "to", "policy", "on_error", "limits", "timeouts", "tls", "accept_proxy", "nodelay", "keepalive",
  "rcvbuf", "sndbuf", "backlog", "bind_source", "mode",
}

-- Key -> the option of the command line that means the same.
local groups = {
  limits = {
    handshakes = "max-handshakes", conns = "max-conns-listener", per_ip = "max-per-ip", rate = "max-rate",
    up = "rate-up", down = "rate-down",
  },
  timeouts = {
    connect = "connect-timeout", handshake = "handshake-timeout", first_byte = "first-byte-timeout",
    idle = "idle-timeout", half_closed = "half-close-timeout", life = "life-timeout",
  },
}
local options_of_listener = {
  nodelay = "nodelay", keepalive = "keepalive", rcvbuf = "rcvbuf", sndbuf = "sndbuf", backlog = "backlog",
  bind_source = "bind-source", mode = "mode",
}
local options_of_process = {
  "max_conns", "max_versions", "drain_timeout", "resolver", "workers", "spin", "gather", "pid_file", "log",
  "log_format", "log_file", "access_log", "jit", "seed", "user", "admin", "admin_token_file", "admin_no_token",
  "admin_lua", "sandbox", "upgrade_timeout",
}
-- Options without a value -> the only thing that they can be, and the option of the command line.
local flags_of_process = {
  jit = { true, "jit" }, admin_no_token = { true, "admin-no-token" },
  admin_lua = { true, "admin-lua" }, sandbox = { false, "no-sandbox" },
}

-- Where what belongs that was written at the wrong place.
local function moved(key)
  local option = type(key) == "string" and key:gsub("_", "-")
  for group, keys in pairs(groups) do
    for name, long in pairs(keys) do
      if long == option then return ("ps.listen{ %s = { %s = … } }"):format(group, name) end
    end
  end
  if options_of_listener[key] then return ("ps.listen{ %s = … }"):format(key) end
end

local function keys_of(t)
  local list = {}
  for key in pairs(t) do list[#list + 1] = key end
  table.sort(list)
  return list
end

-- Of numbers and texts, numbers first.
local function keys_of_any(t)
  local list = {}
  for key in pairs(t) do list[#list + 1] = key end
  table.sort(list, function(a, b)
    if type(a) == type(b) then return a < b end
    return type(a) == "number"
  end)
  return list
end

local function fail(...) error(string.format(...), 0) end

-- A value as the command line would have it, or nil and what it is.
local function as_text(value)
  local kind = type(value)
  if kind == "string" then return value end
  if kind == "boolean" then return tostring(value) end
  if kind ~= "number" or value ~= value then return nil, kind == "number" and "not a number" or "a " .. kind end
  if value % 1 == 0 and math.abs(value) < 2 ^ 53 then return ("%d"):format(value) end
  return (("%.6f"):format(value):gsub("0+$", ""))
end

-- Appends option, value, label.
local function add(settings, option, value, label)
  local text, why = as_text(value)
  if not text then fail("%s is %s; it is a number or a text", label, why) end
  local n = #settings
  settings[n + 1], settings[n + 2], settings[n + 3] = option, text, label
end

-- nodelay = false is the option --no-nodelay.
local function add_flag(settings, option, value, label)
  if type(value) ~= "boolean" then fail("%s is a %s, but must be true or false", label, type(value)) end
  add(settings, value and option or "no-" .. option, "", label)
end

local function unknown(call, key, names)
  local near = nearest(key, names)
  fail("%s has no option %s%s", call, type(key) == "string" and ('"%s"'):format(key) or
    ("[%s]"):format(tostring(key)), near and (', did you mean "%s"?'):format(near) or
    ("; it has %s"):format(table.concat(names, ", ")))
end

-- ---- TLS with clients ----

local tls_call = 'tls = { cert = "cert.pem", key = "key.pem" }'
local tls_keys = { "cert", "key", "client_ca", "client", "alpn", "min", "sni" }

local function tls_text(options, key, label)
  local value = options[key]
  if key == "min" and type(value) == "number" then value = ("%.1f"):format(value) end
  if key == "alpn" and type(value) == "table" then value = table.concat(value, ",") end
  if value ~= nil and (type(value) ~= "string" or value == "") then
    fail("%s.%s is a text%s", label, key, key == "alpn" and " or a list of texts" or "")
  end
  return value
end

-- A certificate and its key, both files.
local function add_cert(settings, options, label)
  local cert, key = tls_text(options, "cert", label), tls_text(options, "key", label)
  if not cert then fail("%s.cert is missing: %s", label, tls_call) end
  add(settings, "tls-cert", cert, label .. ".cert")
  if key then add(settings, "tls-key", key, label .. ".key") end
end

local function add_named(settings, name, value, label)
  if type(value) ~= "table" then fail('%s is { cert = "a.pem", key = "a.key" }', label) end
  for key in pairs(value) do
    if key ~= "cert" and key ~= "key" then unknown(label, key, { "cert", "key" }) end
  end
  if type(name) == "number" then return add_cert(settings, value, label) end -- for the names in it
  local cert, key = tls_text(value, "cert", label), tls_text(value, "key", label)
  if not cert then fail("%s.cert is missing", label) end
  if (cert .. (key or "")):find(",", 1, true) then fail("%s: the name of a file has no comma in it", label) end
  add(settings, "tls-sni", key and ("%s=%s,%s"):format(name, cert, key) or ("%s=%s"):format(name, cert), label)
end

local function add_tls(settings, options)
  local label = "ps.listen: tls"
  if options == nil then return end
  if type(options) ~= "table" then fail("%s is a %s, but must be a table: %s", label, type(options), tls_call) end
  for key in pairs(options) do
    local known = false
    for _, name in ipairs(tls_keys) do known = known or key == name end
    if not known then unknown(label, key, tls_keys) end
  end
  add_cert(settings, options, label)
  local sni = options.sni or {}
  if type(sni) ~= "table" then fail('%s.sni is a table: { ["a.lab"] = { cert = …, key = … } }', label) end
  local names = keys_of_any(sni)
  for _, name in ipairs(names) do
    add_named(settings, name, sni[name], ("%s.sni[%q]"):format(label, tostring(name)))
  end
  local others = { client_ca = "tls-client-ca", client = "tls-client-cert", alpn = "tls-alpn", min = "tls-min" }
  for key, option in pairs(others) do
    local text = tls_text(options, key, label)
    if text then add(settings, option, text, label .. "." .. key) end
  end
end

-- ---- PROXY headers ----

local accept_proxy_call = 'accept_proxy = { from = { "10.0.0.0/8", "unix" } }'

local function need_networks(what)
  fail('ps.listen: accept_proxy %s: who sends a PROXY header says who the client is, so name the networks that are ' ..
    'believed: %s', what, accept_proxy_call)
end

-- The networks of accept_proxy.from as one text.
local function networks_of(from)
  if type(from) == "string" then from = { from } end
  if from == nil then need_networks "has no from" end
  if type(from) ~= "table" or #from == 0 then need_networks "names no network in from" end
  local list = {}
  for i, text in ipairs(from) do
    local ok, why = cidr.parse(text)
    if not ok then fail("ps.listen: accept_proxy.from: %s", why) end
    list[i] = text
  end
  for key in pairs(from) do
    if type(key) ~= "number" then fail("ps.listen: accept_proxy.from is a list; it has the key %s", tostring(key)) end
  end
  return table.concat(list, ",")
end

local function add_accept_proxy(settings, value)
  if value == nil then return end
  if type(value) ~= "table" then need_networks(("is %s, not a table"):format(tostring(value))) end
  for key in pairs(value) do
    if key ~= "from" and key ~= "others" then unknown("ps.listen: accept_proxy", key, { "from", "others" }) end
  end
  add(settings, "accept-proxy", networks_of(value.from), "ps.listen: accept_proxy.from")
  add(settings, "accept-proxy-others", value.others or "accept", "ps.listen: accept_proxy.others")
end

local function settings_of(options)
  local settings = {}
  add_accept_proxy(settings, options.accept_proxy)
  for group, names in pairs(groups) do
    local values = options[group]
    if values ~= nil and type(values) ~= "table" then
      fail("ps.listen: %s is a %s, but must be a table: %s = { %s = … }", group, type(values), group, (next(names)))
    end
    local keys = keys_of(names)
    for key, value in pairs(values or {}) do
      if not names[key] then unknown("ps.listen: " .. group, key, keys) end
      add(settings, names[key], value, ("ps.listen: %s.%s"):format(group, key))
    end
  end
  for key, option in pairs(options_of_listener) do
    local value, label = options[key], "ps.listen: " .. key
    if key == "nodelay" and value ~= nil then
      add_flag(settings, option, value, label)
    elseif value ~= nil then
      add(settings, option, value, label)
    end
  end
  add_tls(settings, options.tls)
  return settings
end

local function binds_of(bind)
  if type(bind) == "string" then return { bind } end
  local list = {}
  if type(bind) ~= "table" or #bind == 0 then
    fail('ps.listen: bind is %s; write bind = ":6379" or a list: bind = { "[::]:5432", "unix:/run/pg.sock" }',
      bind == nil and "missing" or type(bind) == "table" and "an empty list" or "a " .. type(bind))
  end
  for i = 1, #bind do
    if type(bind[i]) ~= "string" then fail("ps.listen: bind[%d] is a %s, but must be a string", i, type(bind[i])) end
    list[i] = bind[i]
  end
  for key in pairs(bind) do
    if type(key) ~= "number" then fail("ps.listen: bind is a list of strings; it has the key %s", tostring(key)) end
  end
  return list
end

local function is_pool(to)
  local kind = type(to)
  if kind ~= "table" and kind ~= "userdata" then return false end
  local ok, pick = pcall(function() return to.pick end)
  return ok and type(pick) == "function"
end

-- target_of(to) -> comma list or nil, function(conn) or nil.
local function target_of(to)
  if to == nil then return nil, nil end
  if type(to) == "string" then return to, nil end
  if type(to) == "function" then return nil, to end
  if is_pool(to) and type(to) == "userdata" then return nil, function() return to end end -- for the best of its servers
  if is_pool(to) then return nil, function(conn) return to:pick(conn.client.key) end end
  if type(to) ~= "table" then
    fail('ps.listen: to is a %s; write "host:port", a list of these, a function(conn) that returns one, or a pool',
      type(to))
  end
  local plain = #to > 0
  for key, value in pairs(to) do
    plain = plain and type(key) == "number" and type(value) == "string"
  end
  if plain then return table.concat(to, ","), nil end
  if next(to) == nil then fail('ps.listen: to is an empty list; write to = "host:port", or leave it out') end
  return nil, function() return to end -- destinations with options are read as those of a connect hook
end

-- A table without servers of pools in it: what is wrong with it can be told while the file loads.
local function is_plain(to)
  if type(to) ~= "table" then return type(to) ~= "userdata" and type(to) ~= "function" end
  if is_pool(to) then return false end
  for _, value in pairs(to) do
    if not is_plain(value) then return false end
  end
  return true
end

local function check_name(name, names)
  if name == nil then return end
  if type(name) ~= "string" or name == "" or #name > 64 or name:find("[^%w_.:-]") then
    fail("ps.listen: the name is one word of at most 64 letters, digits, and _ . : -")
  end
  if names[name] then fail('ps.listen: two listeners are named "%s"', name) end
  names[name] = true
end

-- "guard.lua:3" for each function of a hook.
local function places(entry)
  local list = {}
  for i = 1, #entry do
    local info = getinfo(entry[i], "S")
    list[i] = info.what == "C" and "C" or ("%s:%d"):format(info.short_src, info.linedefined)
  end
  return table.concat(list, ", ")
end

local function describe(value, options)
  local list = {}
  for _, entry in ipairs(compose.list(value, options)) do
    list[#list + 1] = ("%s (%s)"):format(entry.name, places(entry))
  end
  return table.concat(list, ", ")
end

-- A data hook as one stage among others.
local function data_filter(hook, dir, PASS)
  return function(conn, rd, wr)
    while true do
      local chunk = rd:read()
      if not chunk then return end
      local answer = hook(conn, dir, chunk)
      if answer == nil then
        wr:write(chunk)
      elseif type(answer) == "string" then
        if answer ~= "" then wr:write(answer) end
      elseif answer == PASS then
        wr:write(chunk)
        return
      else
        fail('the data hook returned a %s; it returns nothing to send the chunk on unchanged, a string to send ' ..
          'instead ("" drops it), or ps.PASS; conn:close() and conn:reset() end the connection', type(answer))
      end
    end
  end
end

-- make(ps, core): adds ps.listen and ps.options, and returns what takes over once the file has run.
-- core.listen(name, binds, to, settings, policy) and core.option(option, value, label) answer true, or nil and what is
-- wrong.
return function(ps, core)
  local names, said, loaded = {}, {}, false

  -- What was configured, as text: all workers must have the same.
  local function say(...)
    local n, parts = select("#", ...), { ... }
    for i = 1, n do parts[i] = tostring(parts[i]) end
    said[#said + 1] = table.concat(parts, " ")
  end

  local function say_settings(settings)
    local list = {}
    for i = 1, #settings, 3 do list[#list + 1] = settings[i] .. "=" .. settings[i + 1] end
    table.sort(list)
    return table.concat(list, " ")
  end

  local function on_error_of(options)
    local on_error = options.on_error
    if on_error ~= nil and on_error ~= "close" and on_error ~= "pass" then
      fail('ps.listen: on_error is "close" (end the connection, the default) or "pass" (relay on without the hook)')
    end
    return on_error == "pass"
  end

  -- The pipelines as lists of filters.
  local function for_c(policy)
    for _, dir in ipairs { "up", "down" } do
      for i, stage in ipairs(policy[dir] or {}) do
        policy[dir][i] = stage.kind == "filter" and stage.f or data_filter(stage.f, dir, ps.PASS)
      end
    end
    return policy
  end

  local function listen(options)
    check_name(options.name, names)
    local binds = binds_of(options.bind)
    local to, choose = target_of(options.to)
    local settings, pass = settings_of(options), on_error_of(options)
    local what = ("ps.listen (%s)"):format(options.name or binds[1])
    local context = {
      what = what, target = to ~= nil, choose = choose, proxied = core.accept_proxy or options.accept_proxy ~= nil,
    }
    local policy = for_c(compose.policy(options.policy, context))
    local number = core.add_policy(policy, describe(options.policy, context), pass)
    local ok, why = core.listen(options.name, binds, to, settings, number)
    if not ok then fail("%s", why) end
    if choose and is_plain(options.to) then core.check_destination(options.to) end
    say("listen", options.name or "-", table.concat(binds, ","), to or "-", number, say_settings(settings))
  end

  local function set_option(key, value)
    local label, settings = "ps.options: " .. tostring(key), {}
    if key == "unsafe_lua" or key == "lua_modules" then
      fail("ps.options: %s is for whoever starts penstock to grant: --%s", key, (key:gsub("_", "-")))
    end
    local found = false
    for _, name in ipairs(options_of_process) do found = found or name == key end
    local elsewhere = not found and moved(key)
    if elsewhere then fail("%s belongs to a listener: %s", label, elsewhere) end
    if not found then unknown("ps.options", key, options_of_process) end
    local flag = flags_of_process[key]
    if flag and value ~= flag[1] then fail("%s is %s, or left out", label, tostring(flag[1])) end
    add(settings, flag and flag[2] or key:gsub("_", "-"), flag and "" or value, label)
    local ok, why = core.option(settings[1], settings[2], settings[3])
    if not ok then fail("%s", why) end
    return key .. "=" .. settings[2]
  end

  local function options(values)
    local list = {}
    for key, value in pairs(values) do list[#list + 1] = set_option(key, value) end
    table.sort(list)
    say("options", table.concat(list, " "))
  end

  -- Runs f(value), whose messages get the position of the caller's caller.
  local function called(call, f, value)
    if loaded then error(call .. " is for the configuration: call it while the file loads, not in a hook", 3) end
    local ok, why = pcall(f, value)
    if not ok then error(why, 3) end
  end

  -- ps.listen{…}: a listener.
  function ps.listen(value)
    check.keys(value, listen_call, listen_keys, 2)
    called("ps.listen", listen, value)
  end

  -- ps.options{…}: what the command line's options of the process set; the command line wins.
  function ps.options(value)
    if type(value) ~= "table" then
      error("ps.options expects a table: ps.options{ workers = 2, max_conns = 10000 }", 2)
    end
    called("ps.options", options, value)
  end

  -- (value, path, config, operands, target) -> the text of what was configured. The file has run and returned
  -- `value`: with `config` (penstock run) nothing; else the policy of the command line's listeners, when it has any
  -- (`operands`), of which one has a destination (`target`).
  return function(value, path, config, operands, target)
    loaded = true
    if config and value ~= nil then
      fail("%s returned a %s, but a configuration returns nothing: give the policy to ps.listen{ policy = … }", path,
        type(value))
    end
    if not config and (operands or value ~= nil) then
      check.policy(value, path)
      local context = { what = path, target = target, proxied = core.accept_proxy }
      core.set_main(for_c(compose.policy(value, context)), describe(value, context))
      if not operands and #said > 0 and next(value) ~= nil then
        fail("%s returned a policy, but the command line has no LISTEN that it would be for; give it to ps.listen{ " ..
          "policy = … }", path)
      end
    end
    return table.concat(said, "\n")
  end
end
