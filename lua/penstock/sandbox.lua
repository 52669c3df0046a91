-- What policies see of Lua's own libraries: without --unsafe-lua nothing that runs programs, opens files, ends the
-- process, loads machine code or bytecode, or reads memory.
--
-- The functions that stay behind know no globals and call no method: policies may change both.
local error, tonumber, type, format, gsub, match = error, tonumber, type, string.format, string.gsub, string.match

local allowed = {
  os = { "clock", "date", "difftime", "getenv", "time" },
  debug = { "traceback" }, -- getinfo hands out functions that were never meant for scripts
  jit = { "version", "version_num", "os", "arch" },
  package = { "loaded", "preload", "loaders", "path", "config", "searchpath", "seeall" },
}
local removed = { "io", "ffi", "newproxy", "jit.util", "jit.opt", "jit.profile" }
local unsafe_buffer = { "ref", "reserve", "commit", "set", "putcdata" } -- they hand out or take pointers

-- loadfile, dofile and what is returned, the searcher of `require` for *.lua and package.searchpath: text only, and
-- only while the version loads. Later a file would hold its worker up, and be told in part by the message about it.
local function file_functions(G, core)
  local load_source, search_files = core.load_source, core.search_files
  local note_file, serves = core.note_file, core.task.serves
  local setfenv, package = G.setfenv, G.package

  local function open_source(what, file)
    if type(file) ~= "string" then error(format("%s(path): a string is expected, got %s", what, type(file)), 3) end
    if serves() then
      error(format("%s: files are opened only while the policy loads; call it at the top of the file", what), 3)
    end
    note_file(file)
    return load_source(file)
  end

  function G.loadfile(file, _, env)
    local chunk, why = open_source("loadfile", file)
    if chunk and env ~= nil then setfenv(chunk, env) end
    return chunk, why
  end

  function G.dofile(file)
    local chunk, why = open_source("dofile", file)
    if not chunk then error(why, 0) end
    return chunk()
  end

  local function search(...)
    if serves() then error("package.searchpath: files are looked for only while the policy loads", 2) end
    return search_files(...)
  end

  -- `require` of *.lua.
  local function searcher(name)
    if serves() then
      error(format("module '%s' is not loaded, and files are opened only while the policy loads; require it at the " ..
        "top of the file", name), 3)
    end
    local file, tried = search_files(name, package.path)
    if not file then return tried end
    note_file(file)
    local chunk, why = load_source(file)
    if not chunk then error(format("error loading module '%s' from file '%s':\n\t%s", name, file, why), 0) end
    return chunk
  end

  return searcher, search
end

-- `require` of the modules written in C that `list` ("cjson,lpeg") names, along the C path of the system; whatever it
-- finds besides is refused by name.
local function c_searcher(package, searchpath, list)
  local loadlib, cpath = package.loadlib, package.cpath
  local listed = {}
  for name in list:gmatch "[^,]+" do listed[name] = true end

  local function load(file, name)
    local opened, why = loadlib(file, "luaopen_" .. gsub(name, "%.", "_"))
    if not opened then error(format("error loading module '%s' from file '%s':\n\t%s", name, file, why), 0) end
    return opened
  end

  return function(name)
    local root = match(name, "^[^.]*") -- "cjson.safe" is in the file of "cjson"
    local file, tried = searchpath(name, cpath)
    if not file and root ~= name then file = searchpath(root, cpath) end
    if not file then return tried end
    if listed[name] or listed[root] then return load(file, name) end
    return format("\n\tthe module '%s' is written in C (%s): it is opened to policies by --lua-modules %s", name,
      file, root)
  end
end

local function text_only(G)
  local load = G.load
  function G.load(chunk, name, _, ...) return load(chunk, name, "t", ...) end
  function G.loadstring(chunk, name) return load(chunk, name, "t") end
end

-- close(G, core): takes away what is unsafe from the globals G and the methods of string.buffer.
return function(G, core)
  local package, loaded, buffer_methods = G.package, G.package.loaded, core.buffer_methods
  text_only(G)
  local searcher, search = file_functions(G, core)
  package.loaders = { package.loaders[1], searcher, c_searcher(package, core.search_files, core.modules) }
  package.searchpath = search
  for name, keys in pairs(allowed) do
    local keep, library = {}, G[name]
    for _, key in ipairs(keys) do keep[key] = true end
    for key in pairs(library) do
      if not keep[key] then library[key] = nil end
    end
  end
  for _, name in ipairs(removed) do
    G[name], loaded[name], package.preload[name] = nil, nil, nil
  end
  -- The methods of string.buffer are their own metatable: scripts get a copy, without the metamethods.
  local methods = {}
  for name, method in pairs(buffer_methods) do
    if not name:find "^__" then methods[name] = method end
  end
  for _, name in ipairs(unsafe_buffer) do methods[name] = nil end
  buffer_methods.__index = methods
  local setfenv = G.setfenv
  function G.setfenv(f, env)
    -- 0 is the coroutine, which other hooks use after this one; the level counts this function in. A text counts as
    -- its number, and C cuts what it cannot hold.
    local level = tonumber(f)
    if level and not (level >= 1 and level < 2 ^ 20) then error("setfenv(0) is not for policies", 2) end
    local of = setfenv(level and level - level % 1 + 1 or f, env) -- no tail call: it would change the levels
    return of
  end
end
