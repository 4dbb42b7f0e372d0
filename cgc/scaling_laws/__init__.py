"""Loss against compute: runs read from tables and logs (`runs`), power laws fitted to them (`fit`), what follows for
larger runs (`study`), and the picture of it all (`picture`).
"""
