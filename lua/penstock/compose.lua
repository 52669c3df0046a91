-- From the policies of a listener to one: what of several hooks of one name becomes one function, and what passes
-- bytes becomes a pipeline. Raises, without position, what could never run. Pure: knows no connection.
local at_client = require "penstock.at_client"
local nearest = require "penstock.nearest"

local compose = {}

-- In the order of a connection's life.
compose.hooks = { "accept", "sni", "connect", "failed", "connected", "handshake", "data", "filter", "serve", "close" }

local known = {}
for _, name in ipairs(compose.hooks) do known[name] = true end
local directions = { "up", "down" }
local DEEPEST = 16 -- lists in lists; more is a list that holds itself

local function quoted(key)
  return type(key) == "string" and ('"%s"'):format(key) or ("[%s]"):format(tostring(key))
end

local function hint(key, names)
  local near = nearest(key, names)
  return near and (', did you mean "%s"?'):format(near) or ""
end

local function fail(...) error(string.format(...), 0) end

-- ---- one policy ----

local function check_filter(what, filter)
  if type(filter) ~= "table" then
    fail('%s: the hook "filter" is a %s, but must be a table: filter = { up = function(conn, rd, wr) … end }', what,
      type(filter))
  end
  if next(filter) == nil then
    fail("%s: the filter is empty: filter = { up = function(conn, rd, wr) … end, down = … }", what)
  end
  for key, f in next, filter do
    if key ~= "up" and key ~= "down" then
      fail("%s: filter has no direction %s%s; it is { up = function(conn, rd, wr) … end, down = … }", what, quoted(key),
        hint(key, directions))
    end
    if type(f) ~= "function" then
      fail("%s: filter.%s is a %s, but must be a function: %s = function(conn, rd, wr) … end", what, key, type(f), key)
    end
  end
end

local function check_hook(what, key, hook)
  if not known[key] then
    fail("%s: unknown hook %s%s; the hooks are %s", what, quoted(key), hint(key, compose.hooks),
      table.concat(compose.hooks, ", "))
  end
  if key == "filter" then return check_filter(what, hook) end
  if type(hook) ~= "function" then
    fail('%s: the hook "%s" is a %s, but must be a function: %s = function(conn) … end', what, key, type(hook), key)
  end
end

local function check_policy(what, policy)
  for key, hook in next, policy do check_hook(what, key, hook) end
  if policy.data and policy.filter then
    fail("%s: data and filter in one policy, and data has both directions: two ways to see the bytes of %s; put " ..
      "them into two policies, policy = { { data = … }, { filter = … } }", what,
      policy.filter.up and policy.filter.down and "both" or policy.filter.up and "up" or "down")
  end
end

-- Appends the policies in `value`, a policy or a list that may hold lists.
local function flatten(what, value, list, depth)
  if type(value) ~= "table" then
    fail("%s: a policy is a table of hooks, or a list of such tables, not %s%s", what,
      value == nil and "nothing" or "a " .. type(value),
      value == true and " (does the module that was required end with return?)" or "")
  end
  if depth > DEEPEST then fail("%s: the lists of policies are nested without end", what) end
  local n, is_list = #value, value[1] ~= nil
  for key in next, value do
    if is_list and not (type(key) == "number" and key >= 1 and key <= n) then
      fail("%s: a policy is either a list of policies or a table of hooks, not both: %s stands in a list", what,
        quoted(key))
    end
  end
  if is_list then
    for i = 1, n do flatten(what, value[i], list, depth + 1) end
  else
    check_policy(what, value)
    list[#list + 1] = value
  end
end

-- ---- several ----

local function collect(policies, name)
  local list = {}
  for _, policy in ipairs(policies) do list[#list + 1] = policy[name] end
  return list
end

-- The first decision counts; false is one.
local function first_decision(list)
  local n = #list
  if n <= 1 then return list[1] end
  return function(...)
    for i = 1, n do
      local decision = list[i](...)
      if decision ~= nil then return decision end
    end
  end
end

local function all_in_order(list)
  local n = #list
  if n <= 1 then return list[1] end
  return function(...)
    for i = 1, n do list[i](...) end
  end
end

local traceback = debug.traceback

local function with_traceback(err)
  if type(err) == "string" then return traceback(err, 2) end
  return err
end

-- All of them, whatever one does: the first error is raised at the end.
local function all_despite_errors(list)
  local n = #list
  if n <= 1 then return list[1] end
  return function(...)
    local failed, first = false, nil
    for i = 1, n do
      local ok, err = xpcall(list[i], with_traceback, ...)
      if not ok and not failed then failed, first = true, err end
    end
    if failed then error(first, 0) end
  end
end

-- The connect hooks, each after the accept hook of its policy where that could not decide before the PROXY header.
local function connects_of(policies, options)
  local list = {}
  for _, policy in ipairs(policies) do
    list[#list + 1] = options.proxied and at_client.late(policy.accept) or nil
    list[#list + 1] = policy.connect
  end
  list[#list + 1] = options.choose
  return list
end

local function stage_of(policy, dir)
  if policy.data then return { kind = "data", f = policy.data } end
  if policy.filter and policy.filter[dir] then return { kind = "filter", f = policy.filter[dir] } end
end

-- The stages of a direction in the order in which bytes pass them.
local function stages(policies, dir)
  local list = {}
  local first, last, step = 1, #policies, 1
  if dir == "down" then first, last, step = last, first, -1 end
  for i = first, last, step do list[#list + 1] = stage_of(policies[i], dir) end
  return list
end

local function check_serve(what, result, has_target, serves)
  if #serves > 1 then fail("%s: serve is given %d times, and only one can answer the client", what, #serves) end
  if not result.serve then return end
  if has_target then
    fail("%s: serve answers the client itself, so there must be no destination beside it: leave out `to` (on the " ..
      "command line: TARGET is -), or the serve hook", what)
  end
  if result.connect then return end -- it may choose a destination
  local never = {}
  for _, name in ipairs { "failed", "connected", "handshake" } do
    if result[name] then never[#never + 1] = name end
  end
  if result.data then never[#never + 1] = "data" end
  if result.up or result.down then never[#never + 1] = "filter or data" end
  if #never > 0 then
    fail("%s: serve answers every client itself, so %s can never run: take it out, or add a connect hook that " ..
      "chooses a destination for some", what, table.concat(never, ", "))
  end
end

-- compose.policy(value, options) -> one table of functions for C: accept, sni, connect, failed, connected, handshake,
-- serve, close, and data (where one data hook is all there is) or the pipelines up and down, lists of { kind =, f = }.
-- `value` is a policy, a list, or nil. options.what begins each message; options.target says that a destination is
-- configured; options.choose is a function(conn) that chooses it, after the connect hooks; options.proxied that PROXY
-- headers tell who the client is.
function compose.policy(value, options)
  local what, policies, result = options.what, {}, {}
  if value ~= nil then flatten(what, value, policies, 1) end
  for _, name in ipairs { "accept", "sni", "failed", "connected" } do
    result[name] = first_decision(collect(policies, name))
  end
  local connects, serves = connects_of(policies, options), collect(policies, "serve")
  result.connect, result.serve = first_decision(connects), serves[1]
  result.handshake = all_in_order(collect(policies, "handshake"))
  result.close = all_despite_errors(collect(policies, "close"))
  local up, down = stages(policies, "up"), stages(policies, "down")
  if #up == 1 and #down == 1 and up[1].kind == "data" and up[1].f == down[1].f then
    result.data = up[1].f
  else
    result.up, result.down = #up > 0 and up or nil, #down > 0 and down or nil
  end
  check_serve(what, result, options.target, serves)
  return result
end

-- compose.list(value, options) -> { { name =, functions… }, … }: the hooks in force, in the order of a connection's
-- life and of their calls, for `penstock check`. `value` is one that compose.policy() has taken.
function compose.list(value, options)
  local policies, list = {}, {}
  if value ~= nil then flatten(options.what, value, policies, 1) end
  for _, name in ipairs(compose.hooks) do
    local functions = name == "connect" and connects_of(policies, options) or collect(policies, name)
    if name == "filter" then
      for _, dir in ipairs(directions) do
        local entry = { name = "filter." .. dir }
        for _, filter in ipairs(functions) do entry[#entry + 1] = filter[dir] end
        if entry[1] then list[#list + 1] = entry end
      end
    elseif functions[1] then
      functions.name = name
      list[#list + 1] = functions
    end
  end
  return list
end

return compose
