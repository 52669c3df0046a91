-- An access log of one's own: a line for each connection that has ended, with chosen fields, in a chosen form.
local options = require "penstock.options"
local ps = require "penstock"

local call = 'penstock.policy.log{ format = "json", fields = { "time", "client_ip", "reason", "bytes_down" } }'
local names = { "format", "fields", "values", "tags", "sample", "failures", "level" }

local date, floor, format, gsub, huge = os.date, math.floor, string.format, string.gsub, math.huge

local function of_upstream(key)
  return function(conn)
    local upstream = conn.upstream
    return upstream and upstream[key]
  end
end

-- Name -> function(conn, info)
local known = {
  time = function() return date "!%Y-%m-%dT%H:%M:%SZ" end,
  id = function(conn) return conn.id end,
  seq = function(conn) return conn.seq end,
  listener = function(conn) return conn.listener end,
  client_ip = function(conn) return conn.client.ip end,
  client_port = function(conn) return conn.client.port end,
  client_key = function(conn) return conn.client.key end,
  upstream = of_upstream "name",
  upstream_addr = of_upstream "addr",
  via = function(conn)
    local via = conn.upstream and conn.upstream.via
    return via and table.concat(via, ",")
  end,
}
for _, name in ipairs { "reason", "side", "detail", "bytes_up", "bytes_down", "duration", "connect_time" } do
  known[name] = function(_, info) return info[name] end
end

local default_fields = {
  "time", "id", "listener", "client_ip", "client_port", "upstream", "reason", "side", "detail", "bytes_up",
  "bytes_down", "duration",
}

-- ---- values as text ----

local function number_text(value)
  if value ~= value or value == huge or value == -huge then return nil end
  if value == floor(value) then return format("%.0f", value) end
  return (gsub(gsub(format("%.6f", value), "0+$", ""), "%.$", ""))
end

local escapes = { ['"'] = '\\"', ["\\"] = "\\\\", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t" }

local function escape(c) return escapes[c] or format("\\u%04x", c:byte()) end

-- Is every byte over 127 part of a character?
local function is_utf8(text)
  text = gsub(text, "[\194-\223][\128-\191]", " ")
  text = gsub(text, "\224[\160-\191][\128-\191]", " ") -- no longer than it must be
  text = gsub(text, "[\225-\236\238\239][\128-\191][\128-\191]", " ")
  text = gsub(text, "\237[\128-\159][\128-\191]", " ") -- no surrogates
  text = gsub(text, "\240[\144-\191][\128-\191][\128-\191]", " ")
  text = gsub(text, "[\241-\243][\128-\191][\128-\191][\128-\191]", " ")
  text = gsub(text, "\244[\128-\143][\128-\191][\128-\191]", " ")
  return not text:find "[\128-\255]"
end

local function json(value)
  if type(value) == "number" then return number_text(value) or "null" end
  if type(value) == "boolean" then return tostring(value) end
  if value == nil then return "null" end
  local text = gsub(tostring(value), '[%z\1-\31"\\\127]', escape)
  if text:find "[\128-\255]" and not is_utf8(text) then text = gsub(text, "[\128-\255]", escape) end
  return '"' .. text .. '"'
end

-- A word as it is, else quoted; "-" for nothing.
local function word(value)
  if type(value) == "number" then return number_text(value) or "-" end
  if value == nil or value == "" then return "-" end
  local text = tostring(value)
  if not text:find '[%s%c"\\=]' and text ~= "-" then return text end
  return '"' .. gsub(text, '[%z\1-\31"\\\127]', escape) .. '"'
end

-- ---- forms of lines ----

-- "{client_ip} {reason}" -> a list of texts and { field }
local function parse_template(o, text, field)
  local parts, at = {}, 1
  while true do
    local first, last, name = text:find("{([%w_.]+)}", at)
    if not first then break end
    parts[#parts + 1] = text:sub(at, first - 1)
    parts[#parts + 1] = { field(name) }
    at = last + 1
  end
  if #parts == 0 or text:find "%c" then
    o:fail('format is "json", "text", one line with fields in braces ("{client_ip} {reason}"), or a function')
  end
  parts[#parts + 1] = text:sub(at)
  return function(conn, info)
    local out = {}
    for i, part in ipairs(parts) do out[i] = type(part) == "string" and part or word(part[1](conn, info)) end
    return table.concat(out)
  end
end

local function pairs_of(list, field, one)
  local functions = {}
  for i, name in ipairs(list) do functions[i] = field(name) end
  return function(conn, info)
    local out = {}
    for i, name in ipairs(list) do out[i] = one(name, functions[i](conn, info)) end
    return out
  end
end

local function line_of(o, field)
  local form = o:get("format", "text")
  if type(form) == "function" then return form end
  if type(form) ~= "string" then o:fail('format is "json", "text", a line with fields in braces, or a function') end
  local list = o:list "fields" or default_fields
  if form ~= "json" and form ~= "text" then
    if o:get "fields" then o:fail("fields are for json and text: a format of its own names its fields itself") end
    return parse_template(o, form, field)
  end
  if form == "text" then
    local all = pairs_of(list, field, function(name, value) return name .. "=" .. word(value) end)
    return function(conn, info) return table.concat(all(conn, info), " ") end
  end
  local all = pairs_of(list, field, function(name, value) return json(name) .. ":" .. json(value) end)
  return function(conn, info) return "{" .. table.concat(all(conn, info), ",") .. "}" end
end

-- Fields by name: those of `values` first, then "ctx.NAME", then the known ones.
local function field_finder(o)
  local values = o:table "values" or {}
  for name, f in next, values do
    if type(name) ~= "string" or type(f) ~= "function" then
      o:fail("values are functions by the names of their fields: { user = function(conn, info) … end }")
    end
  end
  local all = {}
  for name in next, known do all[#all + 1] = name end
  for name in next, values do all[#all + 1] = name end
  return function(name)
    local key = name:match "^ctx%.(.+)$"
    local f = values[name] or known[name] or (key and function(conn) return conn.ctx[key] end)
    if f then return f end
    local near = require "penstock.nearest"(name, all)
    return o:fail('there is no field "%s"%s; ctx.NAME is conn.ctx.NAME', name,
      near and (', did you mean "%s"?'):format(near) or "")
  end
end

return options.constructor(call, names, function(o)
  local field = field_finder(o)
  local line = line_of(o, field)
  local write = ps.log[o:choice("level", { "debug", "info", "warn", "error" }, "info")]
  local sample, failures = o:get("sample", 1), o:flag("failures", true)
  if type(sample) ~= "number" or not (sample >= 0 and sample <= 1) then
    o:fail("sample is the part of the connections that is logged, from 0 to 1")
  end
  local tags = {}
  for i, name in ipairs(o:list "tags" or {}) do tags[i] = { name, field(name) } end

  local function is_logged(info)
    if sample == 1 or (failures and info.reason ~= "eof" and info.reason ~= "closed") then return true end
    return ps.random() < sample
  end

  return {
    close = function(conn, info)
      for _, tag in ipairs(tags) do
        local value = tag[2](conn, info)
        conn:tag(tag[1], value ~= nil and tostring(value) or nil)
      end
      if is_logged(info) then write((tostring(line(conn, info)))) end
    end,
  }
end)
