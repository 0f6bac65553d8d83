"""The page at `/docs` that shows the API's document, and lets one try what it says. Plain files, nothing from afar."""
