-- What the Lua prompt of the admin shows of values: keys sorted, short tables on one line, the rest indented. Depth,
-- length and number of entries are bounded; no metamethod but __tostring is called.
local next, pcall, rawget, select, tostring, type = next, pcall, rawget, select, tostring, type
local byte, find, format, gsub, rep, sub = string.byte, string.find, string.format, string.gsub, string.rep, string.sub
local concat, sort = table.concat, table.sort

local DEPTH, ENTRIES, KEYS, STRING, SHORT, WIDTH = 5, 200, 5000, 1000, 16, 72
local BYTES = 64 * 1024 -- of a value

local keywords = {}
for word in ("and break do else elseif end false for function goto if in local nil not or repeat return then true " ..
  "until while"):gmatch "%a+" do keywords[word] = true end

local escapes = { ['"'] = '\\"', ["\\"] = "\\\\", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t" }

local function quoted(s)
  local rest = ""
  if #s > STRING then s, rest = sub(s, 1, STRING), format("… (%d bytes)", #s) end
  return '"' .. gsub(s, '[%c"\\]', function(c) return escapes[c] or format("\\%03d", byte(c)) end) .. '"' .. rest
end

local function plain(value)
  local ok, text = pcall(tostring, value)
  if ok and type(text) == "string" then return text end
  return "<" .. type(value) .. ">"
end

local ranks = { number = 1, string = 2, boolean = 3 }

-- Entries of keys_behind().
local function before(a, b)
  if a.rank ~= b.rank then return a.rank < b.rank end
  return a.by < b.by
end

-- The keys behind the first n whole numbers, in order, each in a table { key = }, and whether there are others. Texts
-- are made once: a __tostring may tell another one at each call.
local function keys_behind(t, n)
  local keys = {}
  for key in next, t do
    if not (type(key) == "number" and key >= 1 and key <= n and key % 1 == 0) then
      if #keys == KEYS then return keys, true end
      local rank = ranks[type(key)] or 4
      keys[#keys + 1] = { key = key, rank = rank, by = rank <= 2 and key or plain(key) }
    end
  end
  sort(keys, before)
  return keys, false
end

local render

local function key_text(key, state)
  if type(key) == "string" and find(key, "^[%a_][%w_]*$") and not keywords[key] then return key end
  return "[" .. render(key, DEPTH, state) .. "]"
end

-- The entries of a table as texts, as many as there is room for, and how many of them are of the list in it.
local function entries(t, depth, state)
  local list, n = {}, 0
  local function add(text)
    list[#list + 1] = text
    state.left = state.left - #text
    return state.left > 0 and #list < ENTRIES
  end
  while rawget(t, n + 1) ~= nil do
    n = n + 1
    if not add(render(rawget(t, n), depth + 1, state)) then
      list[#list + 1] = "…"
      return list, n
    end
  end
  local keys, more = keys_behind(t, n)
  for i = 1, #keys do
    local key = keys[i].key
    local room = add(key_text(key, state) .. " = " .. render(rawget(t, key), depth + 1, state))
    if not room and (more or i < #keys) then
      more = true
      break
    end
  end
  if more then list[#list + 1] = "…" end
  return list, n
end

-- Entries one a line; short ones of a list, which are no pairs, as many as fit.
local function lines_of(list, n_short, indent)
  local lines, line = {}, nil
  for i = 1, #list do
    local short = i <= n_short and #list[i] <= SHORT
    if short and line and #line + #list[i] + 2 <= WIDTH - #indent then
      line = line .. ", " .. list[i]
    else
      lines[#lines + 1] = line
      line = list[i]
      if not short then lines[#lines + 1], line = line, nil end
    end
  end
  lines[#lines + 1] = line
  return concat(lines, ",\n" .. indent)
end

local function table_text(t, depth, state)
  local text = plain(t)
  if not find(text, "^table: 0x%x+$") then return text end -- it says itself what it is
  if next(t) == nil then return "{}" end
  if state.open[t] then return "<cycle>" end
  if depth >= DEPTH or state.left <= 0 then return "{…}" end
  state.open[t] = true
  local list, n = entries(t, depth, state)
  local length = 2 * depth
  state.open[t] = nil
  for i = 1, #list do length = length + #list[i] + 2 end
  local line = concat(list, ", ")
  if length <= WIDTH and not find(line, "\n", 1, true) then return "{ " .. line .. " }" end
  local indent = rep("  ", depth)
  return "{\n" .. indent .. "  " .. lines_of(list, n, indent .. "  ") .. "\n" .. indent .. "}"
end

function render(value, depth, state)
  if type(value) == "string" then return quoted(value) end
  if type(value) == "table" then return table_text(value, depth, state) end
  return plain(value)
end

-- A string alone is shown as it is.
local function show_one(value)
  local text = type(value) == "string" and value or render(value, 0, { open = {}, left = BYTES })
  if #text > BYTES then text = sub(text, 1, BYTES) .. format("… (%d bytes)", #text) end
  return text
end

-- show(…) -> text: with tabs between the values, or, when one is longer than a line, each on lines of its own.
return function(...)
  local n, parts, between = select("#", ...), {}, "\t"
  for i = 1, n do
    parts[i] = show_one((select(i, ...)))
    if find(parts[i], "\n", 1, true) then between = "\n" end
  end
  return concat(parts, between)
end
