-- Chooses the destination by the name that the client asks for: TLS's SNI, or HTTP's Host.
local options = require "penstock.options"
local ps = require "penstock"
local protocols = require "penstock.starttls.names".early

local call = 'penstock.policy.router{ names = { ["db.lab"] = "10.0.0.5:5432", ["*.web.lab"] = "10.0.0.6:443" } }'
local names = { "names", "default", "unknown", "tls", "starttls", "http", "tag" }

-- What a route leads to may be a pool.
local function is_destination(value)
  local kind = type(value)
  return kind == "function" or kind == "userdata" or (kind == "string" and value ~= "") or
    (kind == "table" and (next(value) ~= nil or getmetatable(value) ~= nil))
end

local function is_pool(value)
  if type(value) ~= "table" and type(value) ~= "userdata" then return false end
  local ok, pick = pcall(function() return value.pick end)
  return ok and type(pick) == "function"
end

-- A function(conn, name) that gives the destination.
local function route_of(o, label, value)
  if not is_destination(value) then
    o:fail('%s: a destination is "host:port", a table with options, a list of these, a pool, or a function', label)
  end
  if type(value) == "function" then return value end
  if is_pool(value) and type(value) == "table" then -- nil would be the listener's own destination
    return function(conn)
      local server, why = value:pick(conn.client.key)
      return server or ps.deny { reason = why or "unavailable" }
    end
  end
  return function() return value end
end

-- "*.web.lab" -> ".web.lab", true; "web.lab" -> "web.lab", false
local function parse_name(o, name)
  if type(name) ~= "string" then o:fail("names: a name is a text, not a %s", type(name)) end
  local plain = name:lower():gsub("%.$", "")
  local suffix = plain:match "^%*(%..+)$"
  local rest = suffix and suffix:sub(2) or plain
  if rest == "" or rest:find "[^%w_.:%[%]-]" or rest:find("..", 1, true) or rest:find "^%." then
    o:fail('names: "%s" is no name: write "www.lab", or "*.web.lab" for all below%s', name,
      name == "*" and ", and default = … for all others" or "")
  end
  return suffix or plain, suffix ~= nil
end

-- lookup(name) -> route or nil: the exact name, else the longest "*.suffix"
local function table_of(o)
  local exact, below = {}, {}
  for name, value in next, o:table "names" or {} do
    local key, is_wild = parse_name(o, name)
    local routes = is_wild and below or exact
    if routes[key] then o:fail('names: "%s" is given twice', key) end
    routes[key] = route_of(o, ("names[%q]"):format(name), value)
  end
  if next(exact) == nil and next(below) == nil then o:fail('there is no name: names = { ["db.lab"] = "host:port" }') end
  return function(name)
    local route = exact[name]
    local dot = not route and name:find(".", 2, true)
    while dot do
      route = below[name:sub(dot)]
      if route then return route end
      dot = name:find(".", dot + 1, true)
    end
    return route
  end
end

-- What becomes of a name without a route.
local function unknown_of(o)
  local value = o:get("unknown", "deny")
  if type(value) == "function" then return value end
  if not options.made_by(value, "ps.deny") and not options.made_by(value, "ps.reply") then
    if value ~= "deny" and value ~= "reset" then
      o:fail('unknown is "deny", "reset", ps.deny{ … }, ps.reply(bytes), or a function(conn, name) that returns one')
    end
    value = ps.deny { reason = "no_route", reset = value == "reset" }
  end
  return function() return value end
end

-- find(conn) -> name or nil, and an error word
local function finder(tls, http, starttls)
  if starttls then
    return function(conn)
      local hello, why = conn:hello { starttls = starttls }
      return hello and hello.sni, why
    end
  end
  return function(conn)
    local why = "mismatch"
    if tls then
      local hello
      hello, why = conn:hello()
      if hello then return hello.sni, nil end
    end
    if http and why == "mismatch" then return conn:http_host() end
    return nil, why
  end
end

return options.constructor(call, names, function(o)
  local lookup, unknown = table_of(o), unknown_of(o)
  local default = o:get "default" and route_of(o, "default", o:get "default")
  local starttls = o:get "starttls" and o:choice("starttls", protocols)
  local tls, http, tag = o:flag("tls", true), o:flag("http", not starttls), o:text("tag", "name")
  if starttls and (http or not tls) then o:fail("starttls leads to TLS, so tls stays true and http false") end
  if not tls and not http then o:fail("tls and http are both off, so there is no name to find") end
  if tag:find "[^%w_.-]" or #tag > 64 then o:fail("tag is a word of letters, digits, and _ . -") end
  local find = finder(tls, http, starttls)
  return {
    connect = function(conn)
      local name, why = find(conn)
      if name then
        name = name:lower():gsub("%.$", "")
        if tag ~= "" then conn:tag(tag, name) end
      end
      local route = name and lookup(name)
      if route then return route(conn, name) end
      if why and why ~= "mismatch" then return ps.deny { reason = why } end -- it has said nothing whole
      if default then return default(conn, name) end
      return unknown(conn, name)
    end,
  }
end)
