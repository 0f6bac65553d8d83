"""The dashboard: what the view server shows at `/`.

Plain ES modules, CSS and SVG, without a build step and without anything from elsewhere. `static/` holds what a browser
gets; `serve` hands it out. The page reads the same views as everybody else, live (static/live.js), all of them over
one connection (`/api/batch`): a browser opens six to a server, and several pages share them.
"""
