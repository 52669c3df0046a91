-- Tells which files are read while a policy loads, for --watch and `penstock check`: with --unsafe-lua, whose functions
-- are Lua's own. Otherwise penstock.sandbox does.

-- note(G, note_file): note_file(path) is called for each from now on.
return function(G, note_file)
  local package, loadfile, dofile = G.package, G.loadfile, G.dofile
  local searchpath = package.searchpath

  function G.loadfile(file, ...)
    if type(file) == "string" then note_file(file) end
    return loadfile(file, ...)
  end

  function G.dofile(file)
    if type(file) == "string" then note_file(file) end
    return dofile(file)
  end

  -- Before the one that loads it: finds nothing itself.
  table.insert(package.loaders, 2, function(name)
    local file = searchpath(name, package.path)
    if file then note_file(file) end
    return ""
  end)
end
