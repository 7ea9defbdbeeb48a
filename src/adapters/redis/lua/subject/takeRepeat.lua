-- include takeRepeat.lua

-- What a submit is the repeat of has come to (`Earlier`), as its kind and what goes with it; or nothing.
return answered(takeRepeat(request) or {})
