package phonesim

import (
	"bytes"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"strings"

	"golang.org/x/image/font"
	"golang.org/x/image/font/basicfont"
	"golang.org/x/image/math/fixed"
)

// The screen is drawn in a few colours, so that pictures are small and quick to make.
var palette = color.Palette{
	color.RGBA{0xfa, 0xfa, 0xfa, 0xff}, // paper
	color.RGBA{0x1c, 0x1b, 0x1f, 0xff}, // ink
	color.RGBA{0x1a, 0x56, 0xdb, 0xff}, // buttons
	color.RGBA{0xff, 0xff, 0xff, 0xff}, // text on buttons, fields
	color.RGBA{0x8a, 0x8f, 0x98, 0xff}, // lines, hints, what is disabled
	color.RGBA{0xe4, 0xe7, 0xec, 0xff}, // pictures, lists
}

const (
	paper = iota
	ink
	blue
	white
	grey
	pale
)

// letterScale is how many pixels a pixel of the font takes.
const letterScale = 5

// screenshot is the screen as a PNG.
func (t *tree) screenshot() []byte { return encodePNG(t.draw()) }

func encodePNG(m image.Image) []byte {
	var b bytes.Buffer
	encoder := png.Encoder{CompressionLevel: png.BestSpeed}
	_ = encoder.Encode(&b, m) // a buffer does not fail, nor does a picture of this size
	return b.Bytes()
}

func (t *tree) draw() *image.Paletted {
	m := image.NewPaletted(image.Rect(0, 0, screenWidth, screenHeight), palette)
	fill(m, rect{0, 0, screenWidth, statusBar}, ink)
	write(m, t.root.pkg, rect{margin / 2, 0, screenWidth, statusBar}, white, 3)
	t.root.each(func(n *node) bool {
		n.draw(m)
		return true
	})
	return m
}

func (n *node) draw(m *image.Paletted) {
	ink := uint8(ink)
	if !n.enabled {
		ink = grey
	}
	text := n.text
	switch {
	case n.parent == nil || n.parent.parent == nil:
		return
	case n.class == classNames["button"]:
		background := uint8(blue)
		if !n.enabled {
			background = grey
		}
		fill(m, n.bounds, background)
		ink = white
	case n.class == classNames["edit"]:
		fill(m, n.bounds, white)
		line := uint8(grey)
		if n.focused {
			line = blue
		}
		frameOf(m, n.bounds, line)
		if text == n.hint {
			ink = grey
		}
	case n.class == classNames["image"]:
		fill(m, n.bounds, pale)
		if text == "" {
			text = n.desc
		}
	case n.checkable:
		mark := map[bool]string{true: "[x] ", false: "[ ] "}
		text = mark[n.checked] + text
	case len(n.children) > 0:
		frameOf(m, n.bounds, pale)
	}
	if n.item {
		fill(m, rect{n.bounds.left, n.bounds.bottom - 2, n.bounds.right, n.bounds.bottom}, pale)
	}
	inside := n.bounds
	inside.left, inside.right = inside.left+gap, inside.right-gap
	write(m, text, inside, ink, letterScale)
}

func fill(m *image.Paletted, r rect, c uint8) {
	draw.Draw(m, image.Rect(r.left, r.top, r.right, r.bottom), image.NewUniform(palette[c]), image.Point{}, draw.Src)
}

func frameOf(m *image.Paletted, r rect, c uint8) {
	const width = 4
	fill(m, rect{r.left, r.top, r.right, r.top + width}, c)
	fill(m, rect{r.left, r.bottom - width, r.right, r.bottom}, c)
	fill(m, rect{r.left, r.top, r.left + width, r.bottom}, c)
	fill(m, rect{r.right - width, r.top, r.right, r.bottom}, c)
}

// write writes one line of text, cut where the place ends, in the middle of its height. The font has ASCII and Latin-1 letters.
func write(m *image.Paletted, text string, at rect, c uint8, scale int) {
	face := basicfont.Face7x13
	text = strings.NewReplacer("•", "*", "\n", " ").Replace(text)
	width := min(font.MeasureString(face, text).Ceil(), (at.right-at.left)/scale)
	height := face.Height
	if width <= 0 || at.bottom-at.top < height {
		return
	}
	mask := image.NewAlpha(image.Rect(0, 0, width, height))
	d := font.Drawer{Dst: mask, Src: image.Opaque, Face: face, Dot: fixed.P(0, face.Ascent)}
	d.DrawString(text)
	top := at.top + (at.bottom-at.top-height*scale)/2
	for y := range height {
		for x := range width {
			if mask.AlphaAt(x, y).A > 0 {
				fill(m, rect{at.left + x*scale, top + y*scale, at.left + (x+1)*scale, top + (y+1)*scale}, c)
			}
		}
	}
}
